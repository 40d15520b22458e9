import { DatabaseError } from '../../db/errors.ts'
import { setPassword as writePassword } from '../../db/queries/accounts.ts'
import type { AuditContext } from '../../db/queries/audit.ts'
import { listMatchingCustomers } from '../../db/queries/customer-filters.ts'
import {
  type AdminCustomer,
  disableCustomer as disable,
  enableCustomer as enable,
  findListed,
  listCustomers as list,
  type Search,
  searchEmails,
  searchNames,
  updateCustomer,
  updatePolicy,
} from '../../db/queries/customers.ts'
import { eraseCustomer as erase, findErased, sweepErased } from '../../db/queries/erasure.ts'
import type { Page } from '../../db/queries/sessions.ts'
import { COST, hashPassword } from '../crypto/password.ts'
import { applySigningAlg } from '../keys/rotation.ts'
import { ApiError } from '../lib/errors.ts'
import type { Services } from '../services.ts'
import { assertFits, type Policy } from '../tokens/policy.ts'
import { endSessionsOfChange } from './account-sessions.ts'

export type { AdminCustomer } from '../../db/queries/customers.ts'
export type { ErasureReport } from '../../db/queries/erasure.ts'

/** The target of an operator's change. If `revision` is set, it must be the customer's current revision. */
export interface Change {
  customerId: string
  revision: number | undefined
}

/** Erasing a customer is one statement that may delete millions of sessions (ms). */
const ERASURE_DEADLINE_MS = 600_000

/** Throws `not_found`. */
export async function findCustomer({ db }: Services, customerId: string): Promise<AdminCustomer> {
  const [found] = await findListed(db, { customerId })
  if (!found) throw NO_CUSTOMER
  return found
}

export const NO_CUSTOMER = new ApiError('not_found', 'no such customer; check the id')

export async function customerExists({ db }: Services, customerId: string): Promise<boolean> {
  return (await findListed(db, { customerId })).length > 0
}

export const listCustomers = ({ db }: Services, query: Parameters<typeof list>[1]) => list(db, query)

/** Criteria for customers that operators should look at. */
export interface CustomerCriteria {
  /** Seconds. */
  keysOlderThan: number | undefined
  weakHashes: boolean
  /** Seconds. */
  unusedFor: number | undefined
}

/** Lists the customers that meet all criteria, newest first. The statement waits for the turn of `actor`. */
export function findMatchingCustomers(
  { db, reads }: Services,
  { weakHashes, ...filter }: CustomerCriteria,
  page: Page,
  actor: string,
) {
  const { memoryCost, timeCost } = COST
  const weaker = {
    minMemoryKib: weakHashes ? memoryCost : undefined,
    minPasses: weakHashes ? timeCost : undefined,
  }
  return reads.run(actor, () => listMatchingCustomers(db, { ...filter, ...weaker, ...page }))
}

/** Searches customers whose email or name begins with the given text. */
export const searchCustomers = ({ db }: Services, by: 'email' | 'name', search: Search) =>
  (by === 'email' ? searchEmails : searchNames)(db, search)

/** Throws `not_found`, `precondition_failed`, or `conflict` for an email that is taken. */
export async function changeCustomer(
  services: Services,
  change: Change,
  to: { email: string | undefined; name: string | undefined },
  origin: AuditContext,
): Promise<AdminCustomer> {
  const row = { ...origin, ...change, ...to }
  const [changed] = await updateCustomer(services.db, row).catch(unlessTaken)
  const found = await reload(services, change, changed !== undefined)
  if (!changed) throw TAKEN
  return found
}

/**
 * Replaces the policy. It applies to every later issue and refresh, on all replicas. Another `signingAlg` rotates the access key,
 * or publishes the next one. Throws `not_found`, `precondition_failed`, `conflict`, or `invalid_request` for lifetimes that conflict
 * with each other or with the server's.
 */
export async function setPolicy(services: Services, change: Change, policy: Policy, origin: AuditContext) {
  assertFits(policy, services.config)
  const [changed] = await updatePolicy(services.db, { ...origin, ...change, ...policy })
  if (changed) services.revoker.invalidateCustomer(change.customerId, changed.seq)
  if (changed) await applySigningAlg(services, change.customerId, origin)
  return reload(services, change, changed !== undefined)
}

/**
 * Disables a customer. Its tokens and credentials are refused at once here, and by other replicas within
 * MAX_STALENESS. Returns the change feed's number.
 */
export const disableCustomer = (services: Services, change: Change, origin: AuditContext) =>
  setState(disable, services, change, origin)

/** Re-enables a customer. Tokens and sessions that were not revoked in the meantime are valid again. */
export const enableCustomer = (services: Services, change: Change, origin: AuditContext) =>
  setState(enable, services, change, origin)

/** Setting the state that a customer already has changes nothing and is not an error. */
async function setState(act: typeof disable, services: Services, change: Change, origin: AuditContext) {
  const { db, revoker } = services
  const [changed] = await act(db, { ...origin, ...change })
  if (changed) revoker.invalidateCustomer(change.customerId, changed.seq)
  return { customer: await reload(services, change, changed !== undefined), seq: changed?.seq }
}

/**
 * Reloads the customer. Throws `precondition_failed` if nothing was changed because the revision is no
 * longer current.
 */
async function reload(services: Services, { customerId, revision }: Change, changed: boolean) {
  const found = await findCustomer(services, customerId)
  if (!changed && revision !== undefined && found.revision !== revision)
    throw new ApiError('precondition_failed', 'the customer was changed in the meantime; read it again')
  return found
}

/**
 * Sets the password and ends the account's own sessions. Returns the change feed's number if there were
 * any. Throws `not_found`.
 */
export async function setPassword(
  services: Services,
  customerId: string,
  password: string,
  origin: AuditContext,
): Promise<number | undefined> {
  const newHash = await services.passwordHashing.run(origin.actor, () => hashPassword(password))
  const [changed] = await writePassword(services.db, { ...origin, customerId, newHash })
  if (!changed) throw NO_CUSTOMER
  return endSessionsOfChange(services, { ...origin, customerId }, changed)
}

/** Deletes rows that requests in progress wrote after their customer was erased. */
export async function sweepErasedCustomers({ db }: Services): Promise<void> {
  for (const erased of await findErased(db, {})) await sweepErased(db, erased)
}

/** Erases a customer. Only its audit events stay, with ids and nothing personal. Throws `not_found`. */
export async function eraseCustomer(services: Services, customerId: string, origin: AuditContext) {
  const { db, revoker, redisKeyCache } = services
  const connection = db.connection(ERASURE_DEADLINE_MS)
  try {
    const [receipt] = await erase(connection, { ...origin, customerId })
    if (!receipt) throw NO_CUSTOMER
    revoker.invalidateCustomer(customerId, receipt.seq)
    await redisKeyCache?.delete(customerId)
    return receipt
  } finally {
    await connection.close()
  }
}

/** Two concurrent requests for one email can both pass the check; the unique constraint decides. */
function unlessTaken(error: unknown): never {
  throw isEmailTaken(error) ? TAKEN : error
}

export const isEmailTaken = (error: unknown) =>
  error instanceof DatabaseError && error.constraint === 'customers_email'

export const TAKEN = new ApiError('conflict', 'this email already has an account; use another')
