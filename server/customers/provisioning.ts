import { randomBytes } from 'node:crypto'
import { DatabaseError } from '../../db/errors.ts'
import type { NewCustomer } from '../../db/queries/accounts.ts'
import type { AuditContext } from '../../db/queries/audit.ts'
import { type AdminCustomer, findCreated, insertCustomerAlone } from '../../db/queries/customers.ts'
import { findErasure } from '../../db/queries/erasure.ts'
import { isService } from '../audit/actor.ts'
import { newApiKey } from '../clients/api-keys.ts'
import { fromRetry, fromTheSystem, matches, newCustomerId, type RandomSource } from '../crypto/credentials.ts'
import { seal } from '../crypto/envelope.ts'
import type { KeyRing } from '../crypto/key-ring.ts'
import { hashPassword } from '../crypto/password.ts'
import type { Use } from '../jwt/kid.ts'
import { ANY, SESSIONS } from '../jwt/scopes.ts'
import { DATA_KEY_ID, dataKeyContext, newSecret, sealSigningKey } from '../keys/customer-keys.ts'
import { ApiError } from '../lib/errors.ts'
import { drawFor, OTHER_REQUEST } from '../lib/idempotency.ts'
import type { Services } from '../services.ts'
import { NO_POLICY } from '../tokens/policy.ts'
import { TAKEN } from './admin.ts'

interface NewAccount {
  email: string
  name: string | undefined
  password: string | undefined
}

interface Hashed extends NewAccount {
  passwordHash: string
}

interface Created {
  customer: AdminCustomer
  /** Undefined for a service: it acts for the customer with its own credential. */
  apiKey: string | undefined
}

/**
 * Creates a customer, with an API key unless a service creates it. Without a password, login is impossible until one is set. With
 * a `retryKey`, a repeated request returns the same customer and API key as long as both exist: both are derived from the key,
 * which is not stored. Throws `conflict` if the email is taken, RateLimitedError for a service, and `invalid_request` for a
 * different request with the same key.
 */
export async function createCustomer(
  services: Services,
  account: NewAccount,
  origin: AuditContext,
  retryKey?: string,
): Promise<Created> {
  if (isService(origin.actor)) await services.limits.take('createOfService', origin.actor)
  const seed = retryKey === undefined ? undefined : `${origin.actor} ${retryKey}`
  const hashed = { ...account, passwordHash: await hashFor(services, origin.actor, account.password, seed) }
  const draw = seed === undefined ? undefined : drawForAccount(services, seed, hashed)
  const before = async () => draw && findMadeBefore(services, draw, hashed, origin)
  // If two requests with one key race, the second look-up finds the customer that the other request
  // created.
  const created = (await before()) ?? (await insert(services, hashed, origin, draw)) ?? (await before())
  if (!created) throw TAKEN
  return created
}

/**
 * Hashes the password, with the same result for the same seed. Without a password, it hashes an unknown
 * random text.
 */
function hashFor(services: Services, actor: string, password: string | undefined, seed: string | undefined) {
  const { passwordHashing, keyRing } = services
  const text = password ?? randomBytes(32).toString('hex')
  const salt = seed === undefined ? undefined : fromRetry(keyRing.installationKey, seed)(16, 'password salt')
  return passwordHashing.run(actor, () => hashPassword(text, salt))
}

/**
 * Uses the password hash: an API key derived from the password itself would make guesses cheap to verify.
 */
function drawForAccount(services: Services, seed: string, { email, name, password, passwordHash }: Hashed) {
  const { keyRing } = services
  const request = [email, name, password === undefined ? undefined : passwordHash]
  return drawFor(keyRing.installationKey, seed, request)
}

/**
 * Finds what an earlier attempt created. Throws `invalid_request` if that was for a different request or
 * was deleted since.
 */
async function findMadeBefore(
  { db, keyRing }: Services,
  draw: RandomSource,
  asked: Hashed,
  { actor }: AuditContext,
): Promise<Created | undefined> {
  const customerId = newCustomerId(draw)
  const { id: apiKeyId, text } = newApiKey(keyRing, customerId, draw)
  const [found] = await findCreated(db, { customerId, apiKeyId })
  if (found) return isService(actor) ? againWithoutKey(found, asked) : again(found, text)
  // Creating the customer again would make an erased customer's API key valid again.
  if ((await findErasure(db, { customerId })).length > 0) throw ERASED
  return undefined
}

/**
 * Returns undefined if the email is taken, or if an earlier attempt with the same key already created the
 * customer, even if it was erased since.
 */
async function insert(
  { db, keyRing }: Services,
  { email, name, passwordHash }: Hashed,
  origin: AuditContext,
  draw?: RandomSource,
) {
  const account = { email, name, passwordHash }
  const { apiKey, ...made } = newCustomer(keyRing, account, draw, { withApiKey: !isService(origin.actor) })
  const [inserted] = await insertCustomerAlone(db, { ...origin, ...made }).catch(unlessMade)
  if (!inserted) return undefined
  const { customerId: id } = made
  const { createdAt } = inserted
  const named = { id, email, emailVerifiedAt: null, name: name ?? null }
  const customer = { ...named, state: 'active' as const, revision: 1, createdAt }
  return { customer: { ...customer, ...NO_POLICY }, apiKey }
}

/** Two concurrent requests with one Idempotency-Key can both pass the check; the primary key decides. */
function unlessMade(error: unknown): [] {
  if (error instanceof DatabaseError && error.constraint === 'customers_pkey') return []
  throw error
}

type Found = AdminCustomer & { passwordHash: string; digest: Uint8Array | null }

/** Returns the earlier result, for a service. Throws `invalid_request` unless the customer is still as this request describes it. */
function againWithoutKey({ digest: _, passwordHash, ...customer }: Found, asked: Hashed): Created {
  const { email, name = null, password } = asked
  const isSamePassword = password === undefined || passwordHash === asked.passwordHash
  if (customer.email !== email || customer.name !== name || !isSamePassword) throw OTHER_REQUEST
  return { customer, apiKey: undefined }
}

/** Returns the earlier result. Throws `invalid_request` unless exactly that API key still exists. */
function again({ digest, passwordHash: _, ...customer }: Found, apiKey: string): Created {
  if (digest === null) throw KEY_DELETED
  if (!matches(digest, apiKey)) throw OTHER_REQUEST
  return { customer, apiKey }
}

const KEY_DELETED = new ApiError(
  'invalid_request',
  'the API key that this Idempotency-Key created has been deleted; create another one for the customer',
)
const ERASED = new ApiError(
  'invalid_request',
  'the customer that this Idempotency-Key created has been erased; use a new key',
)

/** Creates the initial data of a customer: its id, its secrets, and optionally an API key, which is shown once. */
export function newCustomer(
  keyRing: KeyRing,
  account: Pick<NewCustomer, 'email' | 'name' | 'passwordHash'>,
  draw = fromTheSystem,
  { withApiKey } = { withApiKey: true },
): NewCustomer & { apiKey: string | undefined } {
  const customerId = newCustomerId(draw)
  const { id, digest, text } = newApiKey(keyRing, customerId, draw)
  return {
    ...account,
    ...newSecrets(keyRing, customerId),
    customerId,
    newApiKeyId: withApiKey ? id : undefined,
    apiKeyDigest: digest,
    apiKeyScope: `${ANY} ${SESSIONS}`,
    apiKey: withApiKey ? text : undefined,
  }
}

/** Makes a data key, encrypted with the current master key, and a secret for each use, encrypted with the data key. */
function newSecrets(keyRing: KeyRing, customerId: string) {
  const dataKey = { id: DATA_KEY_ID, bytes: randomBytes(32) }
  const sealSecret = (use: Use) =>
    sealSigningKey(keyRing, dataKey, { customerId, use, version: 1, alg: 'HS512' }, newSecret())
  return {
    sealedDataKey: seal(keyRing.current, dataKey.bytes, dataKeyContext(keyRing, customerId)),
    sealedAccessSecret: sealSecret('access'),
    sealedRefreshSecret: sealSecret('refresh'),
  }
}
