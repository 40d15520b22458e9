/** What clients asked and were answered in one run: names, never tokens or ids. Times are milliseconds of one monotonic clock. */
export interface Call {
  client: string
  /** Undefined: written to the database itself, by a fault that is another writer. */
  replica: number | undefined
  act: Act
  sentAt: number
  recordAnswer: number
  /** 0: no answer came. */
  status: number
  /** X-Assay-Age: how old the state was that the answer rests on (ms). */
  age?: number
  /** The answer's error code; `reuse` for the invalid_grant that says so. */
  error?: string
  /** Of an introspection. */
  active?: boolean
  granted?: Grant
  /** Of a rotation: the new versions. */
  versions?: Partial<Record<Use, number>>
}

export type Use = 'access' | 'refresh'

/** `since`: when the first try under the same Idempotency-Key was sent, or this one's. `wait`: with wait=all. */
export type Act =
  | { does: 'issue'; customer: string; subject: string; since: number }
  | { does: 'log in'; customer: string }
  | { does: 'refresh'; session: string; gen: number }
  | { does: 'verify' | 'introspect'; token: string; strict: boolean }
  | { does: 'revoke token'; token: string; wait: boolean }
  | { does: 'revoke session'; session: string; by: 'id' | 'refresh token'; wait: boolean }
  /** `token`: the access token that names the session. */
  | { does: 'revoke session'; session: string; by: 'access token' | 'logout'; token: string; wait: boolean }
  | { does: 'revoke subject'; customer: string; subject: string; wait: boolean }
  | { does: 'revoke customer'; customer: string; token: string; wait: boolean }
  | { does: 'rotate'; customer: string; uses: Use | 'both'; now: boolean; token: string }

/** An access token, and with a session the refresh token beside it. */
export interface Grant {
  token: string
  customer: string
  subject: string
  /** Of the access secret that signed it. */
  version: number
  /** Milliseconds, from its iat. */
  lifetime: number
  /** `text` names the refresh token's string: two strings of one generation have different names. */
  session?: { name: string; gen: number; text: string }
}

export type Outcome = 'yes' | 'no' | 'turned away' | 'unknown' | 'odd'

/** By status: what an answer may be; what isn't here is odd. Turned away: nothing was done, by a limit or another's act. */
const ANSWERS: Record<string, Record<number, Outcome>> = {
  issue: { 200: 'yes', 409: 'no' },
  'log in': { 200: 'yes', 429: 'turned away' },
  refresh: { 200: 'yes' },
  verify: { 200: 'yes', 401: 'no' },
  'revoke token': { 200: 'yes' },
  // 404: it has ended already.
  'revoke session by id': { 204: 'yes', 404: 'yes' },
  'revoke session by refresh token': { 200: 'yes' },
  'revoke session by access token': { 200: 'yes' },
  'revoke session by logout': { 204: 'yes', 401: 'no' },
  'revoke subject': { 204: 'yes', 429: 'turned away' },
  'revoke customer': { 204: 'yes', 401: 'no' },
  rotate: { 200: 'yes', 401: 'no', 409: 'turned away', 429: 'turned away' },
}

export function outcomeOf({ act, status, active, error }: Call): Outcome {
  if (status === 503) return 'unknown'
  if (act.does === 'introspect' && status === 200 && active !== undefined) return active ? 'yes' : 'no'
  if (act.does === 'refresh' && status === 400 && (error === 'invalid_grant' || error === 'reuse'))
    return 'no'
  const kind = act.does === 'revoke session' ? `${act.does} by ${act.by}` : act.does
  return ANSWERS[kind]?.[status] ?? 'odd'
}

/** The access token that the answer's yes or no is about. */
export function decidedToken({ act }: Call): string | undefined {
  if (act.does === 'verify' || act.does === 'introspect') return act.token
  if (act.does === 'rotate' || act.does === 'revoke customer') return act.token
  return act.does === 'revoke session' && act.by === 'logout' ? act.token : undefined
}

/** An act whose answer was an error may be done by a statement that is still under way: so much later at most (ms). */
export const LINGER = 15_000

/** When what was asked is done or never will be. */
export const settledAt = (call: Call) =>
  ['unknown', 'odd'].includes(outcomeOf(call)) ? call.recordAnswer + LINGER : call.recordAnswer
