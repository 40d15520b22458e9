import type { RevocationRow } from '../db/revocations.ts'
import type { AccessClaims } from './claims.ts'

export type RevokedBecause = 'token_revoked' | 'session_revoked' | 'subject_revoked'

/**
 * What this replica knows to be revoked: the complete set of what is live, so that a token seen for the first time needs
 * no database. How fresh it is, the bus knows.
 */
export class Revocations {
  // Each to its dead_after, a NumericDate. By customer, too: who has one customer's secret can sign any jti and sid.
  readonly #tokens = new Map<string, number>()
  readonly #sessions = new Map<string, number>()
  readonly #subjects = new Map<string, { epoch: number; deadAfter: number }>()
  readonly #customers = new Map<string, { seq: number; deadAfter: number }>()

  /** Idempotent: the replica that acted knows its own change before the poll brings it. */
  add([seq, kind, customerId, key, epoch, deadAfter]: RevocationRow) {
    if (kind === 'token') this.#tokens.set(keyOf(customerId, key), deadAfter)
    else if (kind === 'session') this.#sessions.set(keyOf(customerId, key), deadAfter)
    else if (kind === 'subject') this.#raiseSubject(keyOf(customerId, key), epoch, deadAfter)
    else if (seq > this.changedAt(customerId)) this.#customers.set(customerId, { seq, deadAfter })
  }

  #raiseSubject(key: string, epoch: number, deadAfter: number) {
    if (epoch > (this.#subjects.get(key)?.epoch ?? 0)) this.#subjects.set(key, { epoch, deadAfter })
  }

  /** Why the token is refused, or undefined. The customer's own epoch and state are its record's. */
  refuse(claims: AccessClaims): RevokedBecause | undefined {
    const { client_id, jti, sid, sub, ep } = claims
    if (this.#tokens.size > 0 && this.#tokens.has(keyOf(client_id, jti))) return 'token_revoked'
    if (sid !== undefined && this.#sessions.size > 0 && this.#sessions.has(keyOf(client_id, sid)))
      return 'session_revoked'
    const subject = this.#subjects.size > 0 && this.#subjects.get(keyOf(client_id, sub))
    if (subject && subjectEpoch(ep) < subject.epoch) return 'subject_revoked'
    return undefined
  }

  /** The number of the last change of this customer's record that is known here; 0 for none. */
  changedAt(customerId: string): number {
    return this.#customers.get(customerId)?.seq ?? 0
  }

  /** Forgets what no live token can be concerned by; `now` is a NumericDate. */
  sweep(now: number) {
    for (const deaths of [this.#tokens, this.#sessions])
      for (const [key, deadAfter] of deaths) if (deadAfter < now) deaths.delete(key)
    for (const deaths of [this.#subjects, this.#customers])
      for (const [key, { deadAfter }] of deaths) if (deadAfter < now) deaths.delete(key)
  }

  clear() {
    for (const map of [this.#tokens, this.#sessions, this.#subjects, this.#customers]) map.clear()
  }

  get size() {
    return this.#tokens.size + this.#sessions.size + this.#subjects.size + this.#customers.size
  }
}

// A customer id has no space.
const keyOf = (customerId: string, key: string) => `${customerId} ${key}`

const subjectEpoch = (ep: string) => Number(ep.slice(ep.indexOf('.') + 1))
