import { findAged, findRotatable, type Rotatable, rotateKeys } from '../../db/queries/key-rotation.ts'
import { countLive, listSecrets } from '../../db/queries/live-counts.ts'
import { type AuditContext, MAINTENANCE } from '../audit/audit.ts'
import type { KeyRing } from '../crypto/key-ring.ts'
import { ApiError, Unavailable } from '../lib/errors.ts'
import type { Services } from '../services.ts'
import { openDataKey, sealNewSecret } from './customer-keys.ts'

/** The life of a customer's secrets: `current -> previous -> retired`. Their bytes never leave this server. */

export type { SecretRow } from '../../db/queries/live-counts.ts'

/** Selects which of a customer's secrets to rotate. */
type Uses = { access: boolean; refresh: boolean }

interface Rotation {
  customerId: string
  uses: Uses
  /** Everything that the old secrets signed becomes invalid at once. */
  now: boolean
  /** Recorded in the audit. */
  reason: string
}

/** A rotation that loses against a concurrent one is retried from the new state. */
const MAX_ATTEMPTS = 5
/** The most previous versions that may still verify: each is part of the record that every replica reads. */
const MAX_PREVIOUS = 40
const TOO_MANY_VERSIONS =
  'too many older versions still verify; wait until they are retired, or rotate with now'
/** Customers per maintenance pass. */
const BATCH_ROWS = 100

/**
 * Creates a new version for each use, in one write. Tokens of the old version stay valid until they expire.
 * With `now` they become invalid at once on every replica, and rotating `refresh` also ends every session
 * and every access token, those without a session too.
 * Throws `not_found`, `conflict`, RateLimitedError.
 */
export async function rotateSigningKeys(services: Services, rotation: Rotation, origin: AuditContext) {
  await services.limits.take('rotate', rotation.customerId)
  for (let tried = 0; tried < MAX_ATTEMPTS; tried++) {
    const from = await findSource(services, rotation.customerId)
    if (!rotation.now && from.previous >= MAX_PREVIOUS) throw new ApiError('conflict', TOO_MANY_VERSIONS)
    const rotated = await rotateFrom(services, from, rotation, origin)
    if (rotated) return rotated
  }
  throw new ApiError('conflict', 'the secrets are being rotated by others at the same time; try again')
}

/**
 * Undefined if another rotation came first. `effectiveAt`: milliseconds since 1970, by the database's clock; from then on every
 * replica refuses what was ended.
 */
async function rotateFrom(services: Services, from: Rotatable, rotation: Rotation, origin: AuditContext) {
  const { changeFeed, db, revoker, keyRing } = services
  const { customerId, uses, now, reason } = rotation
  const sealed = sealNext(keyRing, customerId, uses, from)
  const [rotated] = await rotateKeys(db, { ...origin, now, reason, ...sealed, customerId })
  if (!rotated) return undefined
  revoker.invalidateCustomer(customerId, rotated.seq)
  if (now) await changeFeed.waitForReplicas(rotated.seq)
  return { versions: rotated.versions, effectiveAt: changeFeed.now() }
}

async function findSource({ db }: Services, customerId: string): Promise<Rotatable> {
  const [from] = await findRotatable(db, { customerId })
  if (!from) throw new ApiError('not_found', 'no such customer, or it is disabled')
  if (from.standby) throw new Unavailable('rotate: the answer came from a standby', 'database')
  return from
}

function sealNext(keyRing: KeyRing, customerId: string, uses: Uses, from: Rotatable) {
  const dataKey = openDataKey(keyRing, customerId, from.sealedDataKey)
  const next = (use: 'access' | 'refresh', current: number) =>
    sealNewSecret(keyRing, dataKey, { customerId, use, version: current + 1 })
  return {
    rotations: from.rotations,
    sealedAccess: uses.access ? next('access', from.accessVersion) : undefined,
    sealedRefresh: uses.refresh ? next('refresh', from.refreshVersion) : undefined,
  }
}

/** Counts the sessions, and at most how many access tokens, that `rotate` with `now` would end. */
export async function wouldEnd({ db }: Services, customerId: string, uses: Uses) {
  const [live] = await countLive(db, { customerId, ...uses })
  return live!
}

export const listSigningKeys = ({ db }: Services, customerId: string) => listSecrets(db, { customerId })

/**
 * Rotates secrets older than the customer's policy allows, or than `maxAge` seconds without one, unless
 * another replica has rotated them since.
 */
export async function rotateAgedKeys(services: Services, maxAge: number): Promise<void> {
  const aged = await findAged(services.db, { maxAge, mostPrevious: MAX_PREVIOUS, limit: BATCH_ROWS })
  for (const { customerId, rotations, ...uses } of aged)
    await rotateAged(services, customerId, rotations, uses).catch(error => skip(services, customerId, error))
}

async function rotateAged(services: Services, customerId: string, rotations: number, uses: Uses) {
  const from = await findSource(services, customerId)
  if (from.rotations !== rotations) return
  await rotateFrom(services, from, { customerId, uses, now: false, reason: 'age' }, MAINTENANCE)
}

/** A customer whose secrets can't be rotated must not stop the rotation of the others. */
function skip({ log }: Services, customerId: string, error: unknown) {
  if (error instanceof Unavailable) throw error
  log.warn({ err: error, customerId }, 'the secrets of a customer could not be rotated by age')
}
