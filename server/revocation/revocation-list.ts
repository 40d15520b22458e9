import type { RevocationRow } from '../../db/queries/change-feed.ts'
import type { AccessClaims } from '../jwt/claims.ts'
import { Unavailable } from '../lib/errors.ts'

export type RevokedBecause = 'token_revoked' | 'session_revoked' | 'subject_revoked' | 'everyone_revoked'

/** Tokens with a lower epoch are refused. `deadAfter`: a NumericDate after which no such token is alive. */
interface Epoch {
  epoch: number
  deadAfter: number
}

const NO_EPOCH: Epoch = { epoch: 0, deadAfter: 0 }
const later = (one: Epoch, two: Epoch) => (two.epoch > one.epoch ? two : one)

/**
 * All live revocations that this replica knows. The list is complete, so a token seen for the first time
 * needs no query. The change feed keeps it fresh.
 */
export class RevocationList {
  // Values are dead_after, a NumericDate. Keys include the customer, because someone with one customer's
  // secret can sign any jti and sid.
  readonly #tokens = new Map<string, number>()
  readonly #sessions = new Map<string, number>()
  readonly #subjects = new Map<string, Epoch>()
  readonly #customers = new Map<string, { seq: number; deadAfter: number }>()
  readonly #maps = [this.#tokens, this.#sessions, this.#subjects, this.#customers]
  #everyone: Epoch = NO_EPOCH

  /**
   * Adds a change. Idempotent, because a replica applies its own changes before the poll returns them. Throws
   * Unavailable for a kind of revocation that only a newer version knows: ignoring it would accept revoked
   * tokens.
   */
  add([seq, kind, customerId, key, epoch, deadAfter]: RevocationRow) {
    if (kind === 'token') this.#tokens.set(keyOf(customerId, key), deadAfter)
    else if (kind === 'session') this.#sessions.set(keyOf(customerId, key), deadAfter)
    else if (kind === 'subject') this.#raiseSubject(keyOf(customerId, key), { epoch, deadAfter })
    else if (kind === 'everyone') this.#everyone = later(this.#everyone, { epoch, deadAfter })
    else if (kind === 'customer') this.#changeCustomer(customerId, { seq, deadAfter })
    else
      throw new Unavailable(
        `change feed: ${kind} is no kind of change that this version knows`,
        'change_feed',
      )
  }

  #changeCustomer(customerId: string, change: { seq: number; deadAfter: number }) {
    if (change.seq > this.changedAt(customerId)) this.#customers.set(customerId, change)
  }

  #raiseSubject(key: string, raised: Epoch) {
    this.#subjects.set(key, later(this.#subjects.get(key) ?? NO_EPOCH, raised))
  }

  /**
   * Why the token is refused, or undefined. The customer's epoch and state are checked against its record
   * instead.
   */
  refuse(claims: AccessClaims): RevokedBecause | undefined {
    const { client_id, jti, sid, sub, ep } = claims
    if (this.#tokens.size > 0 && this.#tokens.has(keyOf(client_id, jti))) return 'token_revoked'
    if (sid !== undefined && this.#sessions.size > 0 && this.#sessions.has(keyOf(client_id, sid)))
      return 'session_revoked'
    const subject = this.#subjects.size > 0 && this.#subjects.get(keyOf(client_id, sub))
    if (subject && subjectEpoch(ep) < subject.epoch) return 'subject_revoked'
    if (this.#everyone.epoch > 0 && customerEpoch(ep) < this.#everyone.epoch) return 'everyone_revoked'
    return undefined
  }

  /** The number of the last known change of this customer's record; 0 for none. */
  changedAt(customerId: string): number {
    return this.#customers.get(customerId)?.seq ?? 0
  }

  /** Removes revocations that can't affect a live token any more; `now` is a NumericDate. */
  sweep(now: number) {
    for (const deaths of [this.#tokens, this.#sessions])
      for (const [key, deadAfter] of deaths) if (deadAfter < now) deaths.delete(key)
    for (const deaths of [this.#subjects, this.#customers])
      for (const [key, { deadAfter }] of deaths) if (deadAfter < now) deaths.delete(key)
    if (this.#everyone.deadAfter < now) this.#everyone = NO_EPOCH
  }

  clear() {
    for (const map of this.#maps) map.clear()
    this.#everyone = NO_EPOCH
  }

  get size() {
    return this.#maps.reduce((sum, { size }) => sum + size, this.#everyone.epoch > 0 ? 1 : 0)
  }
}

// The separator is unambiguous because a customer id has no space.
const keyOf = (customerId: string, key: string) => `${customerId} ${key}`

/** The customer epoch in a token's `ep`. */
export const customerEpoch = (ep: string) => Number(ep.slice(0, ep.indexOf('.')))
const subjectEpoch = (ep: string) => Number(ep.slice(ep.indexOf('.') + 1))
