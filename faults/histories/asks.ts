import type { Act, Use } from './call.ts'
import type { Access, Customer, Refresh, Session } from './holdings.ts'

/** A call to send, with its description in the history and its form on the wire. */
export interface Ask {
  act: Act
  method: string
  path: string
  bearer?: string
  json?: object
  form?: Record<string, string>
  headers?: Record<string, string>
}

const strictly = (strict: boolean) => (strict ? { headers: { 'X-Consistency': 'strict' } } : {})
const waiting = (wait: boolean) => (wait ? '?wait=all' : '')

export const verify = (token: Access, strict: boolean): Ask => ({
  act: { does: 'verify', token: token.name, strict },
  method: 'GET',
  path: '/verify',
  bearer: token.text,
  ...strictly(strict),
})

export const introspect = (token: Access, strict: boolean): Ask => ({
  act: { does: 'introspect', token: token.name, strict },
  method: 'POST',
  path: '/introspect',
  bearer: token.customer.apiKey,
  form: { token: token.text },
  ...strictly(strict),
})

export interface Issue {
  customer: Customer
  subject: string
  session: boolean
  /** Lifetime of the access token (s). */
  expiresIn: number
  /** The Idempotency-Key; used only if `session` is true. */
  key: string
}

/** `since`: when the first attempt was sent. */
export const issue = ({ customer, subject, session, expiresIn, key }: Issue, since: number): Ask => ({
  act: { does: 'issue', customer: customer.name, subject, since },
  method: 'POST',
  path: '/issue',
  bearer: customer.apiKey,
  json: { subject, expires_in: expiresIn, refresh: session },
  ...(session && { headers: { 'Idempotency-Key': key } }),
})

export const logIn = ({ name, email, password }: Customer): Ask => ({
  act: { does: 'log in', customer: name },
  method: 'POST',
  path: '/api/auth/login',
  json: { email, password },
})

export const refresh = ({ name }: Session, { text, gen }: Refresh): Ask => ({
  act: { does: 'refresh', session: name, gen },
  method: 'POST',
  path: '/refresh',
  form: { refresh_token: text },
})

export const revokeToken = (token: Access, wait: boolean): Ask => ({
  act: { does: 'revoke token', token: token.name, wait },
  method: 'POST',
  path: `/revoke${waiting(wait)}`,
  bearer: token.customer.apiKey,
  form: { token: token.text },
})

export const WAYS_TO_END = ['id', 'refresh token', 'access token'] as const

/** Ends a session in one of the ways that need only what its client holds. */
export function endSession(session: Session, by: (typeof WAYS_TO_END)[number], wait: boolean): Ask {
  const { name, id, access, customer, refreshes } = session
  const revoke = { method: 'POST', path: `/revoke${waiting(wait)}` }
  const does = 'revoke session'
  if (by === 'refresh token')
    return { act: { does, session: name, by, wait }, ...revoke, form: { token: refreshes.at(-1)!.text } }
  const bearer = customer.apiKey
  if (by === 'id')
    return {
      act: { does, session: name, by, wait },
      ...{ method: 'DELETE', path: `/api/sessions/${id}${waiting(wait)}`, bearer },
    }
  const form = { token: access.text, session: 'true' }
  return { act: { does, session: name, by, token: access.name, wait }, ...revoke, bearer, form }
}

export const logOut = ({ name, access }: Session): Ask => ({
  act: { does: 'revoke session', session: name, by: 'logout', token: access.name, wait: false },
  method: 'POST',
  path: '/api/auth/logout',
  bearer: access.text,
})

export const revokeSubject = (customer: Customer, subject: string, wait: boolean): Ask => ({
  act: { does: 'revoke subject', customer: customer.name, subject, wait },
  method: 'POST',
  path: `/api/subjects/revoke${waiting(wait)}`,
  bearer: customer.apiKey,
  json: { subject },
})

export const revokeCustomer = (customer: Customer, { access }: Session, wait: boolean): Ask => ({
  act: { does: 'revoke customer', customer: customer.name, token: access.name, wait },
  method: 'DELETE',
  path: `/api/sessions${waiting(wait)}`,
  bearer: access.text,
})

export const rotate = (customer: Customer, { access }: Session, uses: Use | 'both', now: boolean): Ask => ({
  act: { does: 'rotate', customer: customer.name, uses, now, token: access.name },
  method: 'POST',
  path: '/api/secrets/rotate',
  bearer: access.text,
  json: { use: uses, now },
})
