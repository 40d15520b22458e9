import { DatabaseError } from '../../db/errors.ts'
import {
  findRetriedKey,
  insertApiKey,
  listApiKeys as list,
  deleteApiKey as removeApiKey,
} from '../../db/queries/api-keys.ts'
import type { AuditContext } from '../../db/queries/audit.ts'
import { isOperator } from '../audit/actor.ts'
import { fromTheSystem, matches, newApiKeyId, newCredential } from '../crypto/credentials.ts'
import type { KeyRing } from '../crypto/key-ring.ts'
import { ApiError } from '../lib/errors.ts'
import { type IdempotentRequest, OTHER_REQUEST, retryOf } from '../lib/idempotency.ts'
import type { Services } from '../services.ts'

export type { ApiKeyRow } from '../../db/queries/api-keys.ts'

/** The most API keys that one customer may have. */
const MAX_API_KEYS = 100

/** Makes an API key, which is shown once: only its digest is stored. */
export function newApiKey({ installationKey }: KeyRing, customerId: string, draw = fromTheSystem) {
  const id = newApiKeyId(installationKey, customerId, draw)
  return { id, ...newCredential('assay_ak', id, draw) }
}

/**
 * Creates an API key. With a `retryKey`, a repeated request returns the same key as long as it exists.
 * Throws RateLimitedError, `conflict` if the customer has the maximum number of keys, and `invalid_request` for a different
 * request with the same `retryKey`.
 */
export async function createApiKey(services: Services, key: NewKey, origin: AuditContext, retryKey?: string) {
  const { db, keyRing, limits, turns } = services
  await limits.take('apiKey', key.customerId)
  const retry = retryKey === undefined ? undefined : retryFor(keyRing, key, origin, retryKey)
  const id = newApiKeyId(keyRing.installationKey, key.customerId)
  const made = newCredential('assay_ak', id, retry?.drawOf(id))
  const row = {
    ...origin,
    ...key,
    id,
    digest: made.digest,
    retryDigest: retry?.digest,
    limit: MAX_API_KEYS,
  }
  const [inserted] = await turns.run(key.customerId, () => insertApiKey(db, row)).catch(unlessRetried)
  if (inserted) return { ...inserted, id, text: made.text }
  const [before] = retry ? await findRetriedKey(db, { retryDigest: retry.digest }) : []
  if (before) return again(before, retry!)
  throw new ApiError('conflict', `a customer has at most ${MAX_API_KEYS} API keys; delete one first`)
}

/** Idempotency-Keys belong to one operator, or to a customer across its sessions. */
function retryFor(
  keyRing: KeyRing,
  { customerId, name, scope, expiresIn }: NewKey,
  { actor }: AuditContext,
  retryKey: string,
): IdempotentRequest {
  const asking = isOperator(actor) ? actor : 'customer'
  const seed = `api key ${customerId} ${asking} ${retryKey}`
  return retryOf(keyRing.installationKey, seed, [name, scope, expiresIn])
}

/** Returns the change feed's number, or undefined if there was nothing to delete. */
export async function deleteApiKey(services: Services, customerId: string, id: string, origin: AuditContext) {
  const { db, turns, revoker } = services
  const [deleted] = await turns.run(customerId, () => removeApiKey(db, { ...origin, customerId, id }))
  if (!deleted) return undefined
  revoker.invalidateCustomer(customerId, deleted.seq)
  return deleted.seq
}

export const listApiKeys = ({ db }: Services, customerId: string) => list(db, { customerId })

interface NewKey {
  customerId: string
  name: string | undefined
  scope: string
  /** Seconds from now. */
  expiresIn: number | undefined
}

/** Returns no row if an earlier request with this Idempotency-Key made a key. */
function unlessRetried(error: unknown): [] {
  if (error instanceof DatabaseError && error.constraint === 'api_keys_retry') return []
  throw error
}

function again(
  { digest, ...before }: { id: string; digest: Uint8Array; createdAt: Date; expiresAt: Date | null },
  retry: IdempotentRequest,
) {
  const { text } = newCredential('assay_ak', before.id, retry.drawOf(before.id))
  if (!matches(digest, text)) throw OTHER_REQUEST
  return { ...before, text }
}
