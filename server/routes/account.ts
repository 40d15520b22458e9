import { Hono } from 'hono'
import { z } from 'zod'
import { type Customer, changePassword, findAccount, logIn, signUp } from '../customers/accounts.ts'
import { actorContext } from '../http/act.ts'
import { requireAccessToken, requireAccount } from '../http/auth.ts'
import { readJson } from '../http/body.ts'
import { type AppEnv, auditContext } from '../http/env.ts'
import { present } from '../http/params.ts'
import { json, noContent } from '../http/respond.ts'
import { name, noControls } from '../http/schemas.ts'
import { NO_CACHE, serializeTokens } from './token-response.ts'

/** Argon2 reads all of it, so a bound on the bytes is a bound on the work. */
export const password = z
  .string()
  .refine(text => text.length >= 8 && Buffer.byteLength(text) <= 256, 'from 8 characters to 256 bytes')

export const email = z.string().trim().toLowerCase().pipe(z.email('an email address').max(254))

const signUpRequest = z.strictObject({ email, password, name: name.optional() })

const presentPassword = z.string().refine(text => Buffer.byteLength(text) <= 256, 'at most 256 bytes')

// Any text is looked up: an email that no account can have is answered like one that none has.
const logInRequest = z.strictObject({
  email: z.string().trim().toLowerCase().max(254).refine(noControls, 'without control characters'),
  password: presentPassword,
})

const changePasswordRequest = z.strictObject({ password: presentPassword, new_password: password })

/** A customer's own account. */
export const account = new Hono<AppEnv>()
  .post('/signup', async c => {
    const { email, password, name } = await readJson(c, signUpRequest)
    const context = auditContext(c, 'anonymous')
    const made = await signUp(c.get('services'), { email, password, name }, context)
    const customer = serializeCustomer(made.customer)
    return json(c, { customer, api_key: made.apiKey, ...serializeTokens(made.granted) }, 201, NO_CACHE)
  })
  .post('/login', async c => {
    const request = await readJson(c, logInRequest)
    const context = auditContext(c, 'anonymous')
    const { customer, granted } = await logIn(c.get('services'), request, context)
    return json(c, { customer: serializeCustomer(customer), ...serializeTokens(granted) }, 200, NO_CACHE)
  })
  .get('/me', requireAccessToken, async c => {
    const customer = await findAccount(c.get('services'), c.get('claims').client_id)
    return json(c, serializeCustomer(customer))
  })
  .post('/logout', requireAccount, async c => {
    const { revoker } = c.get('services')
    await revoker.end(c.get('customerId'), c.get('sessionId'), actorContext(c))
    return noContent(c)
  })
  .post('/password', requireAccount, async c => {
    const { password, new_password: newPassword } = await readJson(c, changePasswordRequest)
    const change = { customerId: c.get('customerId'), sessionId: c.get('sessionId'), password, newPassword }
    await changePassword(c.get('services'), change, actorContext(c))
    return noContent(c)
  })

const serializeCustomer = ({ id, email, name, state, createdAt }: Customer) =>
  present({ id, email, name, state, created_at: createdAt })
