import type { Database } from '../../db/client.ts'
import { DatabaseError } from '../../db/errors.ts'
import { endAccountSessions, setPassword } from '../../db/queries/accounts.ts'
import type { AuditContext } from '../../db/queries/audit.ts'
import {
  type AdminCustomer,
  disableCustomer,
  enableCustomer,
  findListed,
  listCustomers,
  searchEmails,
  searchNames,
  updateCustomer,
  updatePolicy,
} from '../../db/queries/customers.ts'
import { type ErasureReport, eraseCustomer, findErased, sweepErased } from '../../db/queries/erasure.ts'
import { hashPassword } from '../crypto/password.ts'
import type { ConcurrencyLimit } from '../lib/concurrency-limit.ts'
import { ApiError } from '../lib/errors.ts'
import type { Revoker } from '../revocation/revoker.ts'
import { assertFits, type Policy, type Settings } from '../tokens/policy.ts'

export type { AdminCustomer, Search } from '../../db/queries/customers.ts'
export type { ErasureReport } from '../../db/queries/erasure.ts'

/** The target of an operator's change. If `revision` is set, it must be the customer's current revision. */
export interface Change {
  customerId: string
  revision: number | undefined
}

/** Erasing a customer is one statement that may delete millions of sessions (ms). */
const ERASURE_DEADLINE_MS = 600_000

export interface CustomerAdminOptions {
  db: Database
  revoker: Revoker
  /** Limits concurrent password hashing. */
  passwordHashing: ConcurrencyLimit
  config: Settings
}

/** Admin operations on customers. */
export class CustomerAdmin {
  readonly #options: CustomerAdminOptions

  constructor(options: CustomerAdminOptions) {
    this.#options = options
  }

  /** Throws `not_found`. */
  async find(customerId: string): Promise<AdminCustomer> {
    const [found] = await findListed(this.#options.db, { customerId })
    if (!found) throw new ApiError('not_found', 'no such customer')
    return found
  }

  list(query: Parameters<typeof listCustomers>[1]) {
    return listCustomers(this.#options.db, query)
  }

  /** Searches customers whose email or name begins with the given text. */
  search(by: 'email' | 'name', query: Parameters<typeof searchEmails>[1]) {
    return (by === 'email' ? searchEmails : searchNames)(this.#options.db, query)
  }

  /** Throws `not_found`, `precondition_failed`, or `conflict` for an email that is taken. */
  async change(
    change: Change,
    to: { email: string | undefined; name: string | undefined },
    origin: AuditContext,
  ): Promise<AdminCustomer> {
    const [changed] = await updateCustomer(this.#options.db, { ...origin, ...change, ...to }).catch(
      unlessTaken,
    )
    const found = await this.#reload(change, changed !== undefined)
    if (!changed) throw TAKEN
    return found
  }

  /**
   * Replaces the policy. It applies to every later issue and refresh, on all replicas. Throws `not_found`,
   * `precondition_failed`, or `invalid_request` for lifetimes that conflict with each other or with the
   * server's.
   */
  async setPolicy(change: Change, policy: Policy, origin: AuditContext): Promise<AdminCustomer> {
    assertFits(policy, this.#options.config)
    const [changed] = await updatePolicy(this.#options.db, { ...origin, ...change, ...policy })
    return this.#reload(change, changed !== undefined)
  }

  /**
   * Disables a customer. Its tokens and credentials are refused at once here, and by other replicas within
   * MAX_STALENESS. Returns the change feed's number.
   */
  async disable(change: Change, origin: AuditContext) {
    return this.#setState(disableCustomer, change, origin)
  }

  /** Re-enables a customer. Tokens and sessions that were not revoked in the meantime are valid again. */
  async enable(change: Change, origin: AuditContext) {
    return this.#setState(enableCustomer, change, origin)
  }

  /** Setting the state that a customer already has changes nothing and is not an error. */
  async #setState(act: typeof disableCustomer, change: Change, origin: AuditContext) {
    const { db, revoker } = this.#options
    const [changed] = await act(db, { ...origin, ...change })
    if (changed) revoker.invalidateCustomer(change.customerId, changed.seq)
    return { customer: await this.#reload(change, changed !== undefined), seq: changed?.seq }
  }

  /**
   * Reloads the customer. Throws `precondition_failed` if nothing was changed because the revision is no
   * longer current.
   */
  async #reload({ customerId, revision }: Change, changed: boolean): Promise<AdminCustomer> {
    const found = await this.find(customerId)
    if (!changed && revision !== undefined && found.revision !== revision)
      throw new ApiError('precondition_failed', 'the customer was changed meanwhile; read it again')
    return found
  }

  /**
   * Sets the password and ends the account's own sessions. Returns the change feed's number if there were
   * any. Throws `not_found`.
   */
  async setPassword(customerId: string, password: string, origin: AuditContext): Promise<number | undefined> {
    const { db, passwordHashing, revoker } = this.#options
    const newHash = await passwordHashing.run(() => hashPassword(password))
    const [changed] = await setPassword(db, { ...origin, customerId, newHash })
    if (!changed) throw new ApiError('not_found', 'no such customer')
    const [late] = await endAccountSessions(db, { ...origin, customerId })
    for (const { ended, seq } of [changed, late!])
      for (const id of ended) revoker.applySessionEnded(customerId, id, seq!)
    return late!.seq ?? changed.seq ?? undefined
  }

  /** Deletes rows that requests in progress wrote after their customer was erased. */
  async sweep(): Promise<void> {
    for (const erased of await findErased(this.#options.db, {})) await sweepErased(this.#options.db, erased)
  }

  /** Erases a customer. Only its audit events stay, with ids and nothing personal. Throws `not_found`. */
  async erase(customerId: string, origin: AuditContext): Promise<ErasureReport> {
    const { db, revoker } = this.#options
    const connection = db.connection(ERASURE_DEADLINE_MS)
    try {
      const [receipt] = await eraseCustomer(connection, { ...origin, customerId })
      if (!receipt) throw new ApiError('not_found', 'no such customer')
      revoker.invalidateCustomer(customerId, receipt.seq)
      return receipt
    } finally {
      await connection.close()
    }
  }
}

/** Two concurrent requests for one email can both pass the check; the unique constraint decides. */
function unlessTaken(error: unknown): never {
  throw error instanceof DatabaseError && error.constraint === 'customers_email' ? TAKEN : error
}

export const TAKEN = new ApiError('conflict', 'this email has an account')
