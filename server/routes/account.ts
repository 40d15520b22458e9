import { Hono } from 'hono'
import { z } from 'zod'
import { normalizePassword } from '../crypto/password.ts'
import { type Customer, changePassword, findAccount, logIn, signUp } from '../customers/accounts.ts'
import { actorContext } from '../http/act.ts'
import { requireAccount } from '../http/auth.ts'
import { readJson } from '../http/body.ts'
import { type AppEnv, auditContext } from '../http/env.ts'
import { inTurn } from '../http/in-turn.ts'
import { noQuery, present } from '../http/params.ts'
import { json, noContent } from '../http/respond.ts'
import { name, noControls } from '../http/schemas.ts'
import { NO_CACHE, serializeTokens } from './token-response.ts'

/** Argon2 reads all of the normalized password, so a bound on its bytes is a bound on the work. */
const MAX_PASSWORD_BYTES = 256
/**
 * A decomposed text has at most three times the bytes. A longer text is not normalized, because unordered marks take time
 * proportional to the square of its length.
 */
const MAX_TYPED_BYTES = 3 * MAX_PASSWORD_BYTES

const fits = (text: string) =>
  Buffer.byteLength(text) <= MAX_TYPED_BYTES &&
  Buffer.byteLength(normalizePassword(text)) <= MAX_PASSWORD_BYTES

/** Code points, composed: decomposed letters would count twice, and NFKC makes 18 of U+FDFA. */
const countCharacters = (text: string) => [...text.normalize('NFC')].length

/** Argon2 would read every lone surrogate as U+FFFD. */
export const presentPassword = z
  .string()
  .refine(text => text.isWellFormed(), { error: 'must not contain an unpaired surrogate', abort: true })
  .refine(fits, { error: `at most ${MAX_PASSWORD_BYTES} bytes`, abort: true })

/** A character that Unicode has not assigned yet may be normalized in another way by a later Node. */
export const password = presentPassword
  .refine(text => countCharacters(text) >= 8, 'at least 8 characters')
  .refine(text => !/\p{Cn}/u.test(text), 'must not contain characters that Unicode has not assigned')

export const email = z.string().trim().toLowerCase().pipe(z.email('must be an email address').max(254))

const signUpRequest = z.strictObject({ email, password, name: name.optional() })

// Any text is looked up, so that an email that no account can have is answered like an email without an account.
const logInRequest = z.strictObject({
  email: z.string().trim().toLowerCase().max(254).refine(noControls, 'must not contain control characters'),
  password: presentPassword,
})

const changePasswordRequest = z.strictObject({ password: presentPassword, new_password: password })

/** A customer's own account. */
export const account = new Hono<AppEnv>()
  .post('/signup', noQuery, async c => {
    const { email, password, name } = await readJson(c, signUpRequest)
    const context = auditContext(c, 'anonymous')
    const made = await signUp(c.get('services'), { email, password, name }, context)
    const customer = serializeCustomer(made.customer)
    return json(c, { customer, api_key: made.apiKey, ...serializeTokens(made.granted) }, 201, NO_CACHE)
  })
  .post('/login', noQuery, async c => {
    const request = await readJson(c, logInRequest)
    const context = auditContext(c, 'anonymous')
    const { customer, granted } = await logIn(c.get('services'), request, context)
    return json(c, { customer: serializeCustomer(customer), ...serializeTokens(granted) }, 200, NO_CACHE)
  })
  .get('/me', requireAccount, noQuery, async c => {
    const customer = await inTurn(c, () => findAccount(c.get('services'), c.get('customerId')))
    return json(c, serializeCustomer(customer))
  })
  .post('/logout', requireAccount, noQuery, async c => {
    const { revoker } = c.get('services')
    await revoker.end(c.get('customerId'), c.get('sessionId'), actorContext(c))
    return noContent(c)
  })
  .post('/password', requireAccount, noQuery, async c => {
    const { password, new_password: newPassword } = await readJson(c, changePasswordRequest)
    const change = { customerId: c.get('customerId'), sessionId: c.get('sessionId'), password, newPassword }
    await changePassword(c.get('services'), change, actorContext(c))
    return noContent(c)
  })

const serializeCustomer = ({ id, email, emailVerifiedAt, name, state, createdAt }: Customer) =>
  present({ id, email, email_verified_at: emailVerifiedAt, name, state, created_at: createdAt })
