import { ApiError } from '../lib/errors.ts'
import type { ChangeFeed } from '../revocation/change-feed.ts'
import type { AppContext } from './env.ts'
import { readQuery } from './params.ts'

/** `?wait=all`. A misspelt value is refused: it would answer before the change is effective everywhere. */
export function waitParam(c: AppContext): 'all' | undefined {
  const { wait } = readQuery(c, ['wait'])
  if (wait !== undefined && wait !== 'all')
    throw new ApiError('invalid_request', 'wait: send all, or omit it')
  return wait
}

/** Resolves when no replica can answer from a state before `seq` or, without a number, before the request. */
export async function waitForAll(c: AppContext, wait: 'all' | undefined, seq: number | undefined) {
  if (wait === 'all') await c.get('services').changeFeed.waitForReplicas(seq)
}

/** `X-Consistency: strict`, or a misspelt value, requests an answer from a state that is not older than the request. */
export async function readBarrier(consistency: string | undefined, changeFeed: ChangeFeed): Promise<void> {
  if (consistency !== undefined) await changeFeed.readBarrier()
}

/** Age in milliseconds of the state that an answer depends on. Undefined while the replica has no lease. */
export const stateAge = (changeFeed: ChangeFeed): string | undefined =>
  changeFeed.hasLease() ? String(Math.ceil(changeFeed.recordAnswer())) : undefined
