/**
 * A request that a client sent in one run, and its answer. It holds names, never tokens or ids. Times are milliseconds of one
 * monotonic clock.
 */
export interface Call {
  client: string
  /** Undefined for a fault that writes to the database directly. */
  replica: number | undefined
  act: Act
  sentAt: number
  recordAnswer: number
  /** 0 if no answer came. */
  status: number
  /** X-Assay-Age: the age of the state behind the answer (ms). */
  age?: number
  /** The answer's error code; `reuse` for an invalid_grant whose description reports reuse. */
  error?: string
  /** The result of an introspection. */
  active?: boolean
  granted?: Grant
  /** The new versions after a rotation. */
  versions?: Partial<Record<Use, number>>
}

export type Use = 'access' | 'refresh'

/**
 * `since`: when the first attempt under the same Idempotency-Key was sent, or this attempt if there is no key. `wait`: sent with
 * wait=all.
 */
export type Act =
  | { does: 'issue'; customer: string; subject: string; since: number }
  | { does: 'log in'; customer: string }
  | { does: 'refresh'; session: string; gen: number }
  | { does: 'verify' | 'introspect'; token: string; strict: boolean }
  | { does: 'revoke token'; token: string; wait: boolean }
  | { does: 'revoke session'; session: string; by: 'id' | 'refresh token'; wait: boolean }
  /** `token`: the access token that identifies the session. */
  | { does: 'revoke session'; session: string; by: 'access token' | 'logout'; token: string; wait: boolean }
  | { does: 'revoke subject'; customer: string; subject: string; wait: boolean }
  | { does: 'revoke customer'; customer: string; token: string; wait: boolean }
  | { does: 'rotate'; customer: string; uses: Use | 'both'; now: boolean; token: string }

/** An access token and, if it belongs to a session, the refresh token issued with it. */
export interface Grant {
  token: string
  customer: string
  subject: string
  /** Version of the access secret that signed it. */
  version: number
  /** Milliseconds from its iat. */
  lifetime: number
  /** `text` names the refresh token's string. Two strings of one generation have different names. */
  session?: { name: string; gen: number; text: string }
}

export type Outcome = 'yes' | 'no' | 'turned away' | 'unknown' | 'odd'

/** Valid answers by status; any other status is odd. "Turned away": a limit or a concurrent act prevented the act. */
const ANSWERS: Record<string, Record<number, Outcome>> = {
  issue: { 200: 'yes', 409: 'no' },
  'log in': { 200: 'yes', 429: 'turned away' },
  refresh: { 200: 'yes' },
  verify: { 200: 'yes', 401: 'no' },
  'revoke token': { 200: 'yes' },
  // 404: it had already ended.
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

/** The access token that was accepted or refused. */
export function decidedToken({ act }: Call): string | undefined {
  if (act.does === 'verify' || act.does === 'introspect') return act.token
  if (act.does === 'rotate' || act.does === 'revoke customer') return act.token
  return act.does === 'revoke session' && act.by === 'logout' ? act.token : undefined
}

/** A statement may still complete an act after its answer was an error, for at most this long (ms). */
export const LINGER = 15_000

/** When the act is done or can no longer happen. */
export const settledAt = (call: Call) =>
  ['unknown', 'odd'].includes(outcomeOf(call)) ? call.recordAnswer + LINGER : call.recordAnswer
