import { claimsOf } from '../tokens.ts'

/** What the clients hold. */

/** Held by one client at a time: it stores its new refresh token before anything else. */
export interface Session {
  customer: Customer
  id: string
  subject: string
  refresh: string
  access: string
}

export interface Customer {
  id: string
  /** Its first key, which stays. */
  apiKey: string
  account: Session
  keys: { id: string; text: string }[]
  /** Somebody is at its account. */
  busy: boolean
  /** Its access secret is at times replaced at once, which ends access tokens that others may be using. */
  hasEmergencies: boolean
  /** The latest access tokens that it was given. */
  issued: string[]
}

/** How many of a customer's latest tokens an emergency is tried on. */
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
/** A name that nothing else has. */
export const fresh = (what: string) => `${what}-${process.pid}-${named++}`
