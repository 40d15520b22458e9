import type { RevocationRow } from '../../db/queries/change-feed.ts'
import type { AccessClaims } from '../jwt/claims.ts'
import { Unavailable } from '../lib/errors.ts'
import { ExpiringTable } from './expiring-table.ts'
import { Fingerprint } from './fingerprint.ts'

export type RevokedBecause = 'token_revoked' | 'session_revoked' | 'subject_revoked' | 'everyone_revoked'

/** The slots that one step of a sweep checks, which takes about a millisecond. */
const SWEEP_SLOTS = 32_768

/** The epoch of an entry for a single token or session, which is revoked whatever its own epoch is. */
const ENDED = 1

/** `deadAfter`: a NumericDate after which it can't affect a live token. */
interface CustomerChange {
  seq: number
  deadAfter: number
}

/**
 * All live revocations that this replica knows. The list is complete, so a token seen for the first time
 * needs no query. The change feed keeps it fresh.
 */
export class RevocationList {
  // Entries are named by customer and id, because someone with one customer's secret can sign any jti and sid.
  readonly #fingerprint = new Fingerprint()
  readonly #tokens = new ExpiringTable()
  readonly #sessions = new ExpiringTable()
  readonly #subjects = new ExpiringTable()
  readonly #tables = [this.#tokens, this.#sessions, this.#subjects]
  readonly #customers = new Map<string, CustomerChange>()
  #everyone = { epoch: 0, deadAfter: 0 }
  #sweep: NodeJS.Immediate | undefined

  /**
   * Adds a change. Idempotent, because a replica applies its own changes before the poll returns them. If a change is
   * added twice with different expiry times, the later one counts, because the replica that acted may only have
   * estimated it. Throws Unavailable for a kind of revocation that only a newer version knows: ignoring it would
   * accept revoked tokens.
   */
  add([seq, kind, customerId, key, epoch, deadAfter]: RevocationRow) {
    if (kind === 'token') this.#tokens.raise(this.#fingerprint.hash(customerId, key), ENDED, deadAfter)
    else if (kind === 'session')
      this.#sessions.raise(this.#fingerprint.hash(customerId, key), ENDED, deadAfter)
    else if (kind === 'subject')
      this.#subjects.raise(this.#fingerprint.hash(customerId, key), epoch, deadAfter)
    else if (kind === 'everyone') this.#raiseEveryone(epoch, deadAfter)
    else if (kind === 'customer') this.#changeCustomer(customerId, { seq, deadAfter })
    else
      throw new Unavailable(`change feed: this version does not know changes of kind ${kind}`, 'change_feed')
  }

  #changeCustomer(customerId: string, { seq, deadAfter }: CustomerChange) {
    const known = this.#customers.get(customerId)
    this.#customers.set(customerId, {
      seq: Math.max(seq, known?.seq ?? 0),
      deadAfter: Math.max(deadAfter, known?.deadAfter ?? 0),
    })
  }

  #raiseEveryone(epoch: number, deadAfter: number) {
    const known = this.#everyone
    this.#everyone = { epoch: Math.max(epoch, known.epoch), deadAfter: Math.max(deadAfter, known.deadAfter) }
  }

  /**
   * Why the token is refused, or undefined. The customer's epoch and state are checked against its record
   * instead.
   */
  refuse({ client_id, jti, sid, sub, ep }: AccessClaims): RevokedBecause | undefined {
    if (this.#has(this.#tokens, client_id, jti)) return 'token_revoked'
    if (sid !== undefined && this.#has(this.#sessions, client_id, sid)) return 'session_revoked'
    if (this.#subjects.size > 0) {
      const epoch = this.#subjects.epoch(this.#fingerprint.hash(client_id, sub))
      if (epoch > 0 && subjectEpoch(ep) < epoch) return 'subject_revoked'
    }
    if (this.#everyone.epoch > 0 && customerEpoch(ep) < this.#everyone.epoch) return 'everyone_revoked'
    return undefined
  }

  #has(table: ExpiringTable, customerId: string, id: string): boolean {
    return table.size > 0 && table.epoch(this.#fingerprint.hash(customerId, id)) > 0
  }

  /** The number of the last known change of this customer's record; 0 for none. */
  changedAt(customerId: string): number {
    return this.#customers.get(customerId)?.seq ?? 0
  }

  /** Removes revocations that can't affect a live token any more, in slices; `now` is a NumericDate. */
  sweep(now: number) {
    clearImmediate(this.#sweep)
    for (const [id, { deadAfter }] of this.#customers) if (deadAfter < now) this.#customers.delete(id)
    if (this.#everyone.deadAfter < now) this.#everyone = { epoch: 0, deadAfter: 0 }
    this.#sweepTables(now, this.#tables, 0, SWEEP_SLOTS)
  }

  #sweepTables(now: number, tables: ExpiringTable[], from: number, slots: number): void {
    const [table, ...others] = tables
    if (!table) return
    const { next, left } = table.sweep(now, from, slots)
    if (next === undefined) this.#sweepTables(now, others, 0, left)
    else this.#sweep = setImmediate(() => this.#sweepTables(now, tables, next, SWEEP_SLOTS)).unref()
  }

  clear() {
    clearImmediate(this.#sweep)
    for (const table of this.#tables) table.clear()
    this.#customers.clear()
    this.#everyone = { epoch: 0, deadAfter: 0 }
  }

  /** The number of live revocations of subjects. */
  get subjects() {
    return this.#subjects.size
  }

  get size() {
    const named = this.#tables.reduce((sum, { size }) => sum + size, this.#customers.size)
    return named + (this.#everyone.epoch > 0 ? 1 : 0)
  }
}

/** The customer epoch in a token's `ep`. */
export const customerEpoch = (ep: string) => Number(ep.slice(0, ep.indexOf('.')))
const subjectEpoch = (ep: string) => Number(ep.slice(ep.indexOf('.') + 1))
