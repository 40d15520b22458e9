import {
  type Aged,
  findAged,
  findRotatable,
  type KeyChangeResult,
  PUBLISHED_AHEAD_SECONDS,
  publishKey,
  type Rotatable,
  rotateKeys,
} from '../../db/queries/key-rotation.ts'
import { countLive, listSecrets } from '../../db/queries/live-counts.ts'
import { isManager, turnOwner } from '../audit/actor.ts'
import { type AuditContext, MAINTENANCE } from '../audit/audit.ts'
import { isAsymmetric } from '../jwt/algorithms.ts'
import { ApiError, Unavailable } from '../lib/errors.ts'
import type { Services } from '../services.ts'
import { takeKeyChange } from './change-limit.ts'
import { planPublication, planRotation, type Uses, wantedAlg } from './rotation-plan.ts'

/** The life of a customer's secrets: `next -> current -> previous -> retired`. Their bytes never leave this server. */

export type { SecretRow } from '../../db/queries/live-counts.ts'

interface Rotation {
  customerId: string
  uses: Uses
  /** Everything that the old secrets signed becomes invalid at once. */
  now: boolean
  /** Recorded in the audit. */
  reason: string
}

/** The result of a rotation. Times are in milliseconds since 1970, by the database's clock. */
export interface Rotated extends Pick<KeyChangeResult, 'versions' | 'next'> {
  /** From this time on every replica refuses the ended tokens and sessions. */
  effectiveAt: number
  /**
   * Set if `now` ended an asymmetric key: offline verifiers that have it cached accept the tokens that Assay signed with it at
   * the latest until this time.
   */
  acceptedLocallyUntil: number | undefined
}

/** A rotation that loses against a concurrent one is retried from the new state. */
const MAX_ATTEMPTS = 5
/** The most previous versions that may still verify: each is part of the record that every replica reads. */
const MAX_PREVIOUS = 40
const TOO_MANY_VERSIONS =
  'too many older versions are still valid; wait until they are retired, or rotate with now'
/** Customers per maintenance pass. */
const BATCH_ROWS = 100

/**
 * Creates a new version for each use, in one write. Tokens of the old version stay valid until they expire.
 * With `now` they become invalid at once on every replica, and rotating `refresh` also ends every session
 * and every access token, those without a session too.
 * Throws `not_found`, `conflict`, RateLimitedError.
 */
export async function rotateSigningKeys(
  services: Services,
  rotation: Rotation,
  origin: AuditContext,
): Promise<Rotated> {
  await takeKeyChange(services.limits, 'rotate', rotation.customerId, origin)
  const rotated = await changeKeys(services, rotation.customerId, origin, async from => {
    if (!rotation.now) assertRotatable(from, rotation.uses)
    return rotateFrom(services, from, rotation, origin)
  })
  const { versions, next, seq, signedUntil } = rotated
  if (rotation.now) await services.changeFeed.waitForReplicas(seq)
  return {
    versions,
    next,
    effectiveAt: services.changeFeed.now(),
    acceptedLocallyUntil: rotation.now ? signedUntil?.getTime() : undefined,
  }
}

/**
 * Repeats `change` from the latest state until no concurrent change comes first; `change` resolves with undefined if
 * one did. Throws `not_found`, `conflict`.
 */
async function changeKeys<Result>(
  services: Services,
  customerId: string,
  origin: AuditContext,
  change: (from: Rotatable) => Promise<Result | undefined>,
): Promise<Result> {
  const attempt = async () => change(await findSource(services, customerId, origin))
  for (let tried = 0; tried < MAX_ATTEMPTS; tried++) {
    const changed = await services.keyChanges.run(turnOwner(origin.actor, customerId), attempt)
    if (changed !== undefined) return changed
  }
  throw new ApiError('conflict', 'other requests are rotating these secrets at the same time; try again')
}

/**
 * Throws `conflict` if a rotation without `now` would make valid tokens fail, on replicas or at offline verifiers.
 */
function assertRotatable({ previous, next }: Rotatable, { access }: Uses) {
  if (previous >= MAX_PREVIOUS) throw new ApiError('conflict', TOO_MANY_VERSIONS)
  const wait = access && next ? Math.ceil(PUBLISHED_AHEAD_SECONDS - next.age) : 0
  if (wait > 0) throw new ApiError('conflict', tooNew(wait))
}

const tooNew = (seconds: number) =>
  `the next access key was published only recently, and verifiers may have cached the JWKS without it; try again in ${seconds} s, rotate only refresh, or, if the key has leaked, rotate with now`

/** Undefined if another rotation came first. */
async function rotateFrom(
  services: Services,
  from: Rotatable,
  rotation: Rotation,
  origin: AuditContext,
): Promise<KeyChangeResult | undefined> {
  const { db, revoker, keyRing } = services
  const { customerId, uses, now, reason } = rotation
  const plan = await planRotation(keyRing, customerId, from, { ...uses, now })
  const [rotated] = await rotateKeys(db, {
    ...origin,
    ...plan,
    customerId,
    whileDisabled: isManager(origin.actor),
    rotations: from.rotations,
    now,
    reason,
  })
  if (rotated) revoker.invalidateCustomer(customerId, rotated.seq)
  return rotated
}

/**
 * Changes the access key to the algorithm of the customer's policy. If offline verifiers may know the current key,
 * the new one is published first, and signs once they have had time to fetch it. Throws `conflict`.
 */
export async function applySigningAlg(
  services: Services,
  customerId: string,
  origin: AuditContext,
): Promise<void> {
  await changeKeys(services, customerId, origin, async from =>
    isApplied(from) ? from : changeAlg(services, from, customerId, origin),
  )
}

function isApplied(from: Rotatable): boolean {
  const alg = wantedAlg(from)
  return isAsymmetric(alg) ? from.next?.alg === alg : !isAsymmetric(from.accessAlg)
}

/** Undefined if another change came first. */
async function changeAlg(services: Services, from: Rotatable, customerId: string, origin: AuditContext) {
  const alg = wantedAlg(from)
  if (!isAsymmetric(alg) || !from.next) {
    const rotation = { customerId, uses: { access: true, refresh: false }, now: false, reason: 'policy' }
    return rotateFrom(services, from, rotation, origin)
  }
  const { db, keyRing, revoker } = services
  const plan = await planPublication(keyRing, customerId, from, alg)
  const [published] = await publishKey(db, {
    ...origin,
    ...plan,
    customerId,
    whileDisabled: isManager(origin.actor),
    rotations: from.rotations,
    now: false,
    reason: 'policy',
  })
  if (published) revoker.invalidateCustomer(customerId, published.seq)
  return published
}

async function findSource({ db }: Services, customerId: string, { actor }: AuditContext): Promise<Rotatable> {
  const [from] = await findRotatable(db, { customerId, whileDisabled: isManager(actor) })
  if (!from) throw new ApiError('not_found', 'no such customer, or it is disabled; check the id')
  if (from.standby) throw new Unavailable('rotate: the answer came from a standby', 'database')
  return from
}

/** Counts the sessions that `rotate` with `now` would end, and gives an upper bound of the access tokens. */
export async function wouldEnd({ db }: Services, customerId: string, uses: Uses) {
  const [live] = await countLive(db, { customerId, ...uses })
  return live!
}

export const listSigningKeys = ({ db }: Services, customerId: string) => listSecrets(db, { customerId })

/**
 * Rotates secrets older than the customer's policy allows, or than `maxAge` seconds without one, and those that the policy's
 * `signingAlg` replaces, unless another replica has rotated them since.
 */
export async function rotateAgedKeys(services: Services, maxAge: number): Promise<void> {
  const aged = await findAged(services.db, { maxAge, mostPrevious: MAX_PREVIOUS, limit: BATCH_ROWS })
  for (const one of aged)
    await rotateAged(services, one).catch(error => skip(services, one.customerId, error))
}

async function rotateAged(services: Services, { customerId, rotations, byPolicy, ...uses }: Aged) {
  const from = await findSource(services, customerId, MAINTENANCE)
  if (from.rotations !== rotations) return
  const reason = byPolicy ? 'policy' : 'age'
  await rotateFrom(services, from, { customerId, uses, now: false, reason }, MAINTENANCE)
}

/** A customer whose secrets can't be rotated must not stop the rotation of the others. */
function skip({ log }: Services, customerId: string, error: unknown) {
  if (error instanceof Unavailable) throw error
  log.warn(
    { err: error, customerId },
    "a customer's secrets could not be rotated automatically; the next round retries it",
  )
}
