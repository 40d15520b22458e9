import { fromRetry, type RandomSource } from '../crypto/credentials.ts'
import { ApiError } from './errors.ts'

/** A request that creates a credential under an Idempotency-Key. */
export interface IdempotentRequest {
  /** Stored with the new row, so that a retry finds it. It reveals neither the key nor the request. */
  digest: Buffer
  /** The source of random bytes for the credential that belongs to this id. */
  drawOf(id: string): RandomSource
}

/**
 * `seed`: the Idempotency-Key and its owner. The new row's id is random; its credential is derived from the
 * id, the seed and the request. So the same request gets the same credential again although we don't store
 * it, and a different request gets one that doesn't match. A deleted credential is never recreated, because
 * the next row has another id.
 */
export const retryOf = (installationKey: Uint8Array, seed: string, request: unknown): IdempotentRequest => ({
  digest: fromRetry(installationKey, seed)(32, 'retry'),
  drawOf: id => fromRetry(installationKey, JSON.stringify([id, seed, request])),
})

/**
 * A retry finds the rows of the first attempt by their ids, which are derived from `seed` alone. The
 * credential is derived from the request too, so a different request gets one that doesn't match.
 */
export function drawFor(installationKey: Uint8Array, seed: string, request: unknown): RandomSource {
  const ofSeed = fromRetry(installationKey, seed)
  const ofBoth = fromRetry(installationKey, JSON.stringify([seed, request]))
  return (bytes, what) => (what === 'credential' ? ofBoth : ofSeed)(bytes, what)
}

export const OTHER_REQUEST = new ApiError(
  'invalid_request',
  'this Idempotency-Key was used with another request; use a new key',
)
