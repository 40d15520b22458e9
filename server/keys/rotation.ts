import { randomBytes } from 'node:crypto'
import type { Querier } from '../../db/queries/change-feed.ts'
import { countLive, listSecrets } from '../../db/queries/key-retirement.ts'
import { findAged, findRotatable, type Rotatable, rotateKeys } from '../../db/queries/key-rotation.ts'
import { type AuditContext, MAINTENANCE } from '../audit/audit.ts'
import { seal } from '../crypto/envelope.ts'
import type { KeyRing } from '../crypto/key-ring.ts'
import { ApiError, Unavailable } from '../lib/errors.ts'
import type { Log } from '../lib/logger.ts'
import type { RateLimiter } from '../lib/rate-limiter.ts'
import type { ChangeFeed } from '../revocation/change-feed.ts'
import type { Revoker } from '../revocation/revoker.ts'
import { openDataKey } from './customer-keys.ts'

export type { SecretRow } from '../../db/queries/key-retirement.ts'

/** Selects which of a customer's secrets to rotate. */
export type Uses = { access: boolean; refresh: boolean }

export interface Rotated {
  versions: { use: 'access' | 'refresh'; version: number }[]
  /** Milliseconds since 1970, by the database's clock: from then on every replica refuses what was ended. */
  effectiveAt: number
}

/**
 * `now`: everything that the old secrets signed becomes invalid at once. `reason` is recorded in the audit.
 */
type Act = { now: boolean; reason: string }

export interface KeyRotationOptions {
  db: Querier
  changeFeed: ChangeFeed
  revoker: Revoker
  keyRing: KeyRing
  limits: RateLimiter
  log: Log
}

/** As long as SHA-512's output, which is the shortest key that HS512 allows (RFC 7518 3.2). */
const SECRET_BYTES = 64
/** A rotation that loses against a concurrent one is retried from the new state. */
const MAX_ATTEMPTS = 5
/** The most previous versions that may still verify: each is part of the record that every replica reads. */
const MAX_PREVIOUS = 40
const TOO_MANY_VERSIONS =
  'too many older versions still verify; wait until they are retired, or rotate with now'
/** Customers per maintenance pass. */
const BATCH_ROWS = 100

export const newSecret = () => randomBytes(SECRET_BYTES)

/**
 * The life of a customer's secrets: `current -> previous -> retired`. Their bytes never leave this server.
 */
export class KeyRotation {
  readonly #options: KeyRotationOptions

  constructor(options: KeyRotationOptions) {
    this.#options = options
  }

  /**
   * Creates a new version for each use, in one write. Tokens of the old version stay valid until they expire.
   * With `now` they become invalid at once on every replica, and rotating `refresh` also ends every session.
   * Throws `not_found`, `conflict`, RateLimitedError.
   */
  async rotate(customerId: string, uses: Uses, act: Act, origin: AuditContext): Promise<Rotated> {
    await this.#options.limits.take('rotate', customerId)
    for (let tried = 0; tried < MAX_ATTEMPTS; tried++) {
      const from = await this.#rotatable(customerId)
      if (!act.now && from.previous >= MAX_PREVIOUS) throw new ApiError('conflict', TOO_MANY_VERSIONS)
      const rotated = await this.#rotateFrom(from, customerId, uses, act, origin)
      if (rotated) return rotated
    }
    throw new ApiError('conflict', 'the secrets are being rotated by others at the same time; try again')
  }

  /** Undefined if another rotation came first. */
  async #rotateFrom(
    from: Rotatable,
    customerId: string,
    uses: Uses,
    act: Act,
    origin: AuditContext,
  ): Promise<Rotated | undefined> {
    const { changeFeed, db, revoker } = this.#options
    const sealed = this.#sealed(customerId, uses, from)
    const [rotated] = await rotateKeys(db, { ...origin, ...act, ...sealed, customerId })
    if (!rotated) return undefined
    revoker.invalidateCustomer(customerId, rotated.seq)
    if (act.now) await changeFeed.waitForReplicas(rotated.seq)
    return { versions: rotated.versions, effectiveAt: changeFeed.now() }
  }

  async #rotatable(customerId: string): Promise<Rotatable> {
    const [from] = await findRotatable(this.#options.db, { customerId })
    if (!from) throw new ApiError('not_found', 'no such customer, or it is disabled')
    if (from.standby) throw new Unavailable('rotate: the answer came from a standby', 'database')
    return from
  }

  #sealed(customer: string, uses: Uses, from: Rotatable) {
    const { keyRing } = this.#options
    const dataKey = openDataKey(keyRing, customer, from.sealedDataKey)
    const next = (purpose: 'access' | 'refresh', current: number) =>
      seal(dataKey, newSecret(), {
        installation: keyRing.installationId,
        customer,
        purpose,
        version: current + 1,
      })
    return {
      rotations: from.rotations,
      sealedAccess: uses.access ? next('access', from.accessVersion) : undefined,
      sealedRefresh: uses.refresh ? next('refresh', from.refreshVersion) : undefined,
    }
  }

  /** Counts the sessions, and at most how many access tokens, that `rotate` with `now` would end. */
  async wouldEnd(customerId: string, uses: Uses): Promise<{ sessions: number; tokens: number }> {
    const [live] = await countLive(this.#options.db, { customerId, ...uses })
    return live!
  }

  list(customerId: string) {
    return listSecrets(this.#options.db, { customerId })
  }

  /**
   * Rotates secrets older than the customer's policy allows, or than `maxAge` seconds without one, unless
   * another replica has rotated them since.
   */
  async rotateAged(maxAge: number): Promise<void> {
    const aged = await findAged(this.#options.db, { maxAge, mostPrevious: MAX_PREVIOUS, limit: BATCH_ROWS })
    for (const { customerId, rotations, ...uses } of aged)
      await this.#rotateOne(customerId, rotations, uses).catch(error => this.#skip(customerId, error))
  }

  async #rotateOne(customerId: string, rotations: number, uses: Uses): Promise<void> {
    const from = await this.#rotatable(customerId)
    if (from.rotations !== rotations) return
    await this.#rotateFrom(from, customerId, uses, { now: false, reason: 'age' }, MAINTENANCE)
  }

  /** A customer whose secrets can't be rotated must not stop the rotation of the others. */
  #skip(customerId: string, error: unknown) {
    if (error instanceof Unavailable) throw error
    this.#options.log.warn(
      { err: error, customerId },
      'the secrets of a customer could not be rotated by age',
    )
  }
}
