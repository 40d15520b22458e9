import { ApiError } from '../lib/errors.ts'
import type { ChangeFeed } from '../revocation/change-feed.ts'
import type { Call } from './call.ts'
import { readQuery } from './params.ts'

/** Misspelt, it would answer before it is so. */
export function waitOf(call: Call): 'all' | undefined {
  const { wait } = readQuery(call, ['wait'])
  if (wait !== undefined && wait !== 'all')
    throw new ApiError('invalid_request', 'wait: all, or leave it out')
  return wait
}

/** Resolves when no replica can answer by what was before `seq`, or before the call. */
export async function waitForAll(
  { changeFeed }: { changeFeed: ChangeFeed },
  wait: 'all' | undefined,
  seq: number | undefined,
) {
  if (wait === 'all') await changeFeed.waitForReplicas(seq)
}
