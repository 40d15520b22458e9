import { claimsOf } from '../tokens.ts'

/** Held by one client at a time, which stores its new refresh token before it does anything else. */
export interface Session {
  customer: Customer
  id: string
  subject: string
  refresh: string
  access: string
}

export interface Customer {
  id: string
  /** Its first key, which is never deleted. */
  apiKey: string
  account: Session
  keys: { id: string; text: string }[]
  /** Another client is using its account. */
  busy: boolean
  /** Its access secret is sometimes rotated with `now`, which ends access tokens that other clients may be using. */
  hasEmergencies: boolean
  /** Its most recent access tokens. */
  issued: string[]
}

/** How many of a customer's latest tokens are checked after an emergency rotation. */
const REMEMBERED = 20

interface Tokens {
  access_token: string
  refresh_token: string
}

export function sessionOf(customer: Customer, tokens: Tokens): Session {
  const { sid: id, sub: subject } = claimsOf(tokens.access_token)
  const session = { customer, id, subject, refresh: '', access: '' }
  store(session, tokens)
  return session
}

export function store(session: Session, tokens: Tokens) {
  session.refresh = tokens.refresh_token
  session.access = tokens.access_token
  const { issued } = session.customer
  issued.push(session.access)
  if (issued.length > REMEMBERED) issued.shift()
}

let named = 0
/** Returns a unique name. */
export const fresh = (what: string) => `${what}-${process.pid}-${named++}`
