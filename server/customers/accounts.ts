import {
  type CustomerRow,
  findCustomer,
  findLogin,
  insertCustomer,
  insertLoginFailure,
  insertPasswordFailure,
  type Login,
  updatePassword,
} from '../../db/queries/accounts.ts'
import type { AuditContext, AuditType } from '../../db/queries/audit.ts'
import type { Querier } from '../../db/queries/change-feed.ts'
import { actsOf, insertLogin } from '../../db/queries/issue.ts'
import type { Config } from '../config/load.ts'
import { hashPassword, verifyPassword } from '../crypto/password.ts'
import { ACCOUNT } from '../jwt/scopes.ts'
import { ApiError } from '../lib/errors.ts'
import { addressKey } from '../lib/rate-limiter.ts'
import type { Services } from '../services.ts'
import type { IssueRequest } from '../tokens/issuer.ts'
import { endSessionsOfChange } from './account-sessions.ts'
import { newCustomer } from './provisioning.ts'

export type Customer = Omit<CustomerRow, 'passwordHash'>

/** Throws `signup_closed`, `conflict` for an email that is taken, or RateLimitedError. */
export async function signUp(
  services: Services,
  account: { email: string; password: string; name: string | undefined },
  origin: AuditContext,
) {
  const { db, config, keyRing, limits, passwordHashing, issuer } = services
  if (config.signup === 'closed')
    throw new ApiError('signup_closed', 'signup is closed; ask the operator for an account')
  await limits.take('signup', addressKey(origin.ip))
  await limits.take('signupOfDay', addressKey(origin.ip))
  const passwordHash = await passwordHashing.run(addressKey(origin.ip), () => hashPassword(account.password))
  const { apiKey, ...made } = newCustomer(keyRing, { ...account, passwordHash })
  const id = made.customerId
  let createdAt = new Date(0)
  const granted = await issuer.startWith(
    grantFor(config, id, 'customer.signed_up', origin),
    async session => {
      const act = { acts: actsOf([session]), ...issuer.defaults }
      const [inserted] = await insertCustomer(db, { ...act, ...made })
      if (inserted) createdAt = inserted.createdAt
      return inserted
    },
  )
  if (!granted) throw new ApiError('conflict', 'this email already has an account; log in instead')
  const { email, name = null } = account
  const customer: Customer = { id, email, emailVerifiedAt: null, name, state: 'active', createdAt }
  return { customer, apiKey, granted }
}

/**
 * Throws `invalid_credentials`, also for an unknown email, and `customer_disabled` only if the password is
 * right.
 */
export async function logIn(
  { db, config, limits, passwordHashing, issuer }: Services,
  { email, password }: { email: string; password: string },
  origin: AuditContext,
) {
  await limits.take('login', addressKey(origin.ip))
  await limits.take('loginOfEmail', `${addressKey(origin.ip)} ${email}`)
  const [login] = await findLogin(db, { email })
  const matched = await passwordHashing.run(addressKey(origin.ip), () =>
    verifyPassword(login?.passwordHash, password),
  )
  if (!login || !matched || login.state !== 'active') throw await loginFailure(db, login, matched, origin)
  const { passwordHash, ...customer } = login
  const grant = grantFor(config, login.id, 'customer.logged_in', origin)
  const granted = await issuer.startWith(
    grant,
    async session =>
      (await insertLogin(db, { acts: actsOf([session]), ...issuer.defaults, passwordHash }))[0],
  )
  if (!granted) throw await loginFailure(db, login, false, origin)
  return { customer: { ...customer, email } satisfies Customer, granted }
}

async function loginFailure(db: Querier, login: Login | undefined, matched: boolean, origin: AuditContext) {
  const reason = matched ? 'disabled' : 'password'
  await insertLoginFailure(db, { ...origin, customerId: login?.id, reason })
  return matched
    ? new ApiError('customer_disabled', 'this customer is disabled; ask the operator to enable it')
    : new ApiError('invalid_credentials', 'email or password is wrong; check both')
}

/** The grant of a customer that acts for itself. */
const grantFor = (
  config: Config,
  customerId: string,
  type: AuditType,
  origin: AuditContext,
): IssueRequest => ({
  ...origin,
  actor: `customer:${customerId}`,
  customerId,
  subject: customerId,
  scope: ACCOUNT,
  exact: false,
  audience: config.issuer,
  claims: undefined,
  expiresIn: undefined,
  apiKeyId: undefined,
  type,
})

/** Reads the database, because this replica may not know the latest change yet. */
export async function isActive({ db }: Services, customerId: string): Promise<boolean> {
  const [row] = await findCustomer(db, { customerId })
  return row?.state === 'active'
}

/** Throws `not_found` if the customer was erased a moment ago. */
export async function findAccount({ db }: Services, customerId: string): Promise<Customer> {
  const { passwordHash: _, ...customer } = await findRow(db, customerId)
  return customer
}

async function findRow(db: Querier, customerId: string): Promise<CustomerRow> {
  const [row] = await findCustomer(db, { customerId })
  if (!row) throw new ApiError('not_found', 'no such customer; check the id')
  return row
}

/**
 * Checks the current password of an account that requests a change, and returns its hash. `failure` is the event of a wrong
 * password. Throws `invalid_credentials`, or RateLimitedError.
 */
export async function checkPassword(
  { db, passwordHashing, limits }: Services,
  { customerId, sessionId, password }: { customerId: string; sessionId: string; password: string },
  failure: AuditType,
  origin: AuditContext,
): Promise<string> {
  await limits.take('login', addressKey(origin.ip))
  await limits.take('passwordOfSession', sessionId)
  const { passwordHash } = await findRow(db, customerId)
  if (await passwordHashing.run(customerId, () => verifyPassword(passwordHash, password))) return passwordHash
  await insertPasswordFailure(db, { ...origin, customerId, sessionId, type: failure })
  throw new ApiError('invalid_credentials', 'the current password is wrong; check it')
}

/**
 * Ends the customer's own other sessions. Throws `invalid_credentials`, `conflict` with a concurrent change, or
 * RateLimitedError.
 */
export async function changePassword(
  services: Services,
  change: { customerId: string; sessionId: string; password: string; newPassword: string },
  origin: AuditContext,
): Promise<void> {
  const { db, passwordHashing } = services
  const { customerId, sessionId: keepSessionId } = change
  const oldHash = await checkPassword(services, change, 'customer.password_change_failed', origin)
  const newHash = await passwordHashing.run(customerId, () => hashPassword(change.newPassword))
  const act = { ...origin, customerId, keepSessionId }
  const [changed] = await updatePassword(db, { ...act, oldHash, newHash })
  if (!changed)
    throw new ApiError('conflict', 'the password was changed in the meantime; log in with the new one')
  await endSessionsOfChange(services, act, changed)
}
