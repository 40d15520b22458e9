import { Hono } from 'hono'
import { z } from 'zod'
import type { Customer } from '../customers.ts'
import { accessToken, account } from './caller.ts'
import { type Ctx, type Deps, type Env, originOf } from './context.ts'
import { present, readJson } from './params.ts'
import { json, NO_STORE, noContent } from './respond.ts'
import { name, noControls } from './schemas.ts'
import { tokenResponse } from './token.ts'

type Needs = Pick<Deps, 'customers' | 'sessions' | 'tokens' | 'metrics' | 'proxies' | 'revoker'>

/** A customer's own account. */
export function accountRoutes(deps: Needs) {
  return new Hono<Env>()
    .post('/api/auth/signup', signUp(deps))
    .post('/api/auth/login', logIn(deps))
    .get('/api/auth/me', me(deps))
    .post('/api/auth/logout', logOut(deps))
    .post('/api/auth/password', changePassword(deps))
}

/** Argon2 reads all of it, so a bound on the bytes is a bound on the work. */
const password = z
  .string()
  .refine(text => text.length >= 8 && Buffer.byteLength(text) <= 256, 'from 8 characters to 256 bytes')

const email = z.string().trim().toLowerCase().pipe(z.email('an email address').max(254))

const signUpRequest = z.strictObject({ email, password, name: name.optional() })

function signUp(deps: Needs) {
  return async function signUp(c: Ctx) {
    const { email, password, name } = await readJson(c, signUpRequest)
    const made = await deps.customers.signUp({ email, password, name }, originOf(c, deps, 'anonymous'))
    const body = { customer: toCustomer(made.customer), api_key: made.apiKey, ...tokenResponse(made.granted) }
    return json(c, body, 201, NO_STORE)
  }
}

const presentPassword = z.string().refine(text => Buffer.byteLength(text) <= 256, 'at most 256 bytes')

// Whatever was typed is looked up: what no account can have is answered like what none has.
const logInRequest = z.strictObject({
  email: z.string().trim().toLowerCase().max(254).refine(noControls, 'without control characters'),
  password: presentPassword,
})

function logIn(deps: Needs) {
  return async function logIn(c: Ctx) {
    const request = await readJson(c, logInRequest)
    const { customer, granted } = await deps.customers.logIn(request, originOf(c, deps, 'anonymous'))
    return json(c, { customer: toCustomer(customer), ...tokenResponse(granted) }, 200, NO_STORE)
  }
}

function me(deps: Needs) {
  return async function me(c: Ctx) {
    const claims = await accessToken(c, deps)
    deps.sessions.noteSeen(claims)
    return json(c, toCustomer(await deps.customers.find(claims.client_id)), 200, NO_STORE)
  }
}

function logOut(deps: Needs) {
  return async function logOut(c: Ctx) {
    const { client_id, sid } = await account(c, deps)
    await deps.revoker.end(client_id, sid, originOf(c, deps, `session:${sid}`))
    return noContent(c)
  }
}

const changePasswordRequest = z.strictObject({ password: presentPassword, new_password: password })

function changePassword(deps: Needs) {
  return async function changePassword(c: Ctx) {
    const { client_id: customerId, sid: sessionId } = await account(c, deps)
    const { password, new_password: newPassword } = await readJson(c, changePasswordRequest)
    const change = { customerId, sessionId, password, newPassword }
    await deps.customers.changePassword(change, originOf(c, deps, `session:${sessionId}`))
    return noContent(c)
  }
}

const toCustomer = ({ id, email, name, state, createdAt }: Customer) =>
  present({ id, email, name, state, created_at: createdAt })
