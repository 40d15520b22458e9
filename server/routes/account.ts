import { z } from 'zod'
import type { Customer } from '../customers/accounts.ts'
import { accessToken, account } from '../http/auth.ts'
import { readJson } from '../http/body.ts'
import type { Call, Routes } from '../http/call.ts'
import { auditContextOf, type Services } from '../http/env.ts'
import { present } from '../http/params.ts'
import { json, NO_STORE, noContent } from '../http/respond.ts'
import { name, noControls } from '../http/schemas.ts'
import { tokenResponse } from './token.ts'

type Needs = Pick<Services, 'customers' | 'sessions' | 'tokens' | 'metrics' | 'proxies' | 'revoker'>

/** A customer's own account. */
export function accountRoutes(services: Needs): Routes {
  return {
    'POST /api/auth/signup': signUp(services),
    'POST /api/auth/login': logIn(services),
    'GET /api/auth/me': me(services),
    'POST /api/auth/logout': logOut(services),
    'POST /api/auth/password': changePassword(services),
  }
}

/** Argon2 reads all of it, so a bound on the bytes is a bound on the work. */
export const password = z
  .string()
  .refine(text => text.length >= 8 && Buffer.byteLength(text) <= 256, 'from 8 characters to 256 bytes')

export const email = z.string().trim().toLowerCase().pipe(z.email('an email address').max(254))

const signUpRequest = z.strictObject({ email, password, name: name.optional() })

function signUp(services: Needs) {
  return async function signUp(call: Call) {
    const { email, password, name } = await readJson(call, signUpRequest)
    const made = await services.customers.signUp(
      { email, password, name },
      auditContextOf(call, services, 'anonymous'),
    )
    const body = { customer: toCustomer(made.customer), api_key: made.apiKey, ...tokenResponse(made.granted) }
    return json(body, 201, NO_STORE)
  }
}

const presentPassword = z.string().refine(text => Buffer.byteLength(text) <= 256, 'at most 256 bytes')

// Whatever was typed is looked up: what no account can have is answered like what none has.
const logInRequest = z.strictObject({
  email: z.string().trim().toLowerCase().max(254).refine(noControls, 'without control characters'),
  password: presentPassword,
})

function logIn(services: Needs) {
  return async function logIn(call: Call) {
    const request = await readJson(call, logInRequest)
    const { customer, granted } = await services.customers.logIn(
      request,
      auditContextOf(call, services, 'anonymous'),
    )
    return json({ customer: toCustomer(customer), ...tokenResponse(granted) }, 200, NO_STORE)
  }
}

function me(services: Needs) {
  return async function me(call: Call) {
    const claims = await accessToken(call, services)
    services.sessions.markConfirmed(claims)
    return json(toCustomer(await services.customers.find(claims.client_id)), 200, NO_STORE)
  }
}

function logOut(services: Needs) {
  return async function logOut(call: Call) {
    const { client_id, sid } = await account(call, services)
    await services.revoker.end(client_id, sid, auditContextOf(call, services, `session:${sid}`))
    return noContent()
  }
}

const changePasswordRequest = z.strictObject({ password: presentPassword, new_password: password })

function changePassword(services: Needs) {
  return async function changePassword(call: Call) {
    const { client_id: customerId, sid: sessionId } = await account(call, services)
    const { password, new_password: newPassword } = await readJson(call, changePasswordRequest)
    const change = { customerId, sessionId, password, newPassword }
    await services.customers.changePassword(change, auditContextOf(call, services, `session:${sessionId}`))
    return noContent()
  }
}

const toCustomer = ({ id, email, name, state, createdAt }: Customer) =>
  present({ id, email, name, state, created_at: createdAt })
