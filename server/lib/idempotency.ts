import { fromRetry, type RandomSource } from '../crypto/credentials.ts'
import { ApiError } from './errors.ts'

/** What an Idempotency-Key stands for, of a request that makes a credential. */
export interface IdempotentRequest {
  /** Kept with what is made, so that it is found again; it tells neither the key nor the request. */
  digest: Buffer
  /** What the credential of the thing with this id is drawn from. */
  drawOf(id: string): RandomSource
}

/**
 * `seed`: the Idempotency-Key, and whose it is. The id of what is made is random; its credential comes from the id, the seed
 * and the request. So the same request has the same credential again, none of it being kept; another request has one that
 * doesn't fit; and what was deleted is not made again, for the next one has another id.
 */
export const retryOf = (installationKey: Uint8Array, seed: string, request: unknown): IdempotentRequest => ({
  digest: fromRetry(installationKey, seed)(32, 'retry'),
  drawOf: id => fromRetry(installationKey, JSON.stringify([id, seed, request])),
})

/**
 * What is made of it is found again by its ids, which come from the `seed` alone. Its credential comes from the request too, so
 * another request has one that doesn't fit.
 */
export function drawFor(installationKey: Uint8Array, seed: string, request: unknown): RandomSource {
  const ofSeed = fromRetry(installationKey, seed)
  const ofBoth = fromRetry(installationKey, JSON.stringify([seed, request]))
  return (bytes, what) => (what === 'credential' ? ofBoth : ofSeed)(bytes, what)
}

export const OTHER_REQUEST = new ApiError(
  'invalid_request',
  'this Idempotency-Key was used with another request; use a new one',
)
