import { OAuthError } from '../lib/errors.ts'
import type { Bus } from '../revocation/change-feed.ts'
import type { Call } from './call.ts'
import { readQuery } from './params.ts'

/** Misspelt, it would answer before it is so. */
export function waitOf(call: Call): 'all' | undefined {
  const { wait } = readQuery(call, ['wait'])
  if (wait !== undefined && wait !== 'all')
    throw new OAuthError('invalid_request', 'wait: all, or leave it out')
  return wait
}

/** Resolves when no replica can answer by what was before `seq`, or before the call. */
export async function waitForAll({ bus }: { bus: Bus }, wait: 'all' | undefined, seq: number | undefined) {
  if (wait === 'all') await bus.everywhere(seq)
}
