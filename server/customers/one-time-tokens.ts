import { resetPassword as consumeReset } from '../../db/queries/accounts.ts'
import type { AuditContext } from '../../db/queries/audit.ts'
import {
  verifyEmail as consumeVerification,
  findPasswordReset,
  insertEmailChangeRequest,
  insertOneTimeToken,
  type Purpose,
} from '../../db/queries/one-time-tokens.ts'
import { newOneTimeToken, parseOneTimeToken } from '../crypto/credentials.ts'
import { hashPassword } from '../crypto/password.ts'
import { ApiError } from '../lib/errors.ts'
import { addressKey } from '../lib/rate-limiter.ts'
import type { Services } from '../services.ts'
import { endSessionsOfChange } from './account-sessions.ts'
import { checkPassword } from './accounts.ts'
import { isEmailTaken, NO_CUSTOMER } from './admin.ts'

export type { Purpose } from '../../db/queries/one-time-tokens.ts'

export interface OneTimeToken {
  token: string
  /** The address to send it to. */
  email: string
  expiresAt: Date
}

/**
 * Creates a token that the operator delivers; it replaces the customer's open one for this purpose. `expiresIn`: seconds. Throws
 * `not_found`.
 */
export async function createOneTimeToken(
  { db }: Services,
  request: { customerId: string; purpose: Purpose; email?: string | undefined; expiresIn: number },
  origin: AuditContext,
): Promise<OneTimeToken> {
  const { text: token, digest } = newOneTimeToken(request.customerId)
  const [made] = await insertOneTimeToken(db, { ...origin, email: undefined, ...request, digest })
  if (!made) throw NO_CUSTOMER
  return { token, ...made }
}

/** A wrong token is answered like one that was used, replaced or has expired. */
const NOT_OPEN = new ApiError(
  'invalid_grant',
  'this token is wrong, expired, already used or replaced; request a new link',
)

const ADDRESS_TAKEN = new ApiError(
  'conflict',
  'another account has this address now; request a change to another address',
)

/** The constraint is checked when the token is used, because a check at its creation would reveal who has an account. */
function unlessTaken(error: unknown): never {
  throw isEmailTaken(error) ? ADDRESS_TAKEN : error
}

/** The token, and its customer as the actor. Throws `invalid_grant`, or RateLimitedError. */
async function readToken({ limits }: Services, token: string, origin: AuditContext) {
  await limits.take('oneTimeToken', addressKey(origin.ip))
  const presented = parseOneTimeToken(token)
  if (!presented) throw NOT_OPEN
  return { ...origin, ...presented, actor: `customer:${presented.customerId}` }
}

/**
 * Sets the password by a token, which is consumed, and ends all sessions of the account. Throws `invalid_grant`, or
 * RateLimitedError.
 */
export async function resetPassword(
  services: Services,
  { token, password }: { token: string; password: string },
  origin: AuditContext,
): Promise<void> {
  const { db, passwordHashing } = services
  const presented = await readToken(services, token, origin)
  // A password is hashed only for a token that is open: a stranger must not choose how often we hash.
  if ((await findPasswordReset(db, presented)).length === 0) throw NOT_OPEN
  const newHash = await passwordHashing.run(presented.customerId, () => hashPassword(password))
  const [changed] = await consumeReset(db, { ...presented, newHash })
  if (!changed) throw NOT_OPEN
  await endSessionsOfChange(services, presented, changed)
}

/**
 * Verifies the address that a token was sent to. A token for a change of the address also sets it. Throws `invalid_grant`,
 * `conflict` if another customer has the address by now, or RateLimitedError.
 */
export async function verifyEmail(services: Services, token: string, origin: AuditContext): Promise<void> {
  const presented = await readToken(services, token, origin)
  const [verified] = await consumeVerification(services.db, presented).catch(unlessTaken)
  if (!verified) throw NOT_OPEN
}

/**
 * Checks the password of an account that requests another address, and records the request. It changes nothing. It doesn't look
 * up whether another customer has the address, so that the answer can't reveal it. Throws `invalid_credentials`, or
 * RateLimitedError.
 */
export async function requestEmailChange(
  services: Services,
  account: { customerId: string; sessionId: string; password: string },
  origin: AuditContext,
): Promise<void> {
  await checkPassword(services, account, 'customer.email_change_failed', origin)
  const { customerId, sessionId } = account
  await insertEmailChangeRequest(services.db, { ...origin, customerId, sessionId })
}
