import { SLACK } from '../checker.ts'
import { type Call, outcomeOf, settledAt, type Use } from './call.ts'
import { askedSince, mayHaveExpired } from './expiry.ts'
import { judgeRefreshes, thefts } from './generations.ts'
import {
  customerKey,
  type Granted,
  grantOf,
  type Known,
  sessionKey,
  sessionOf,
  subjectKey,
  tokenKey,
} from './known.ts'

/** A call that forbids a token or ends a session. */
export interface Ban {
  call: Call
  /** When the call was sent; from then on a refusal is correct (ms). */
  askedAt: number
  /** When the call was acknowledged; from then on it must hold. Infinity if it was not, or if it may not cover this token. */
  heldAt: number
}

export type Bans = ReturnType<typeof bansOf>

/** `bound` is N in milliseconds. */
export function bansOf(known: Known, bound: number) {
  /** Covers every generation. */
  const ofSession = remembered((name: string) => {
    const reuses = thefts(judgeRefreshes(known, name)).map(call => banOf(call, call.error === 'reuse'))
    return [...endsOf(known, name, bound), ...reuses, ...epochBans(known, sessionOf(known, name))]
  })
  const ofToken = remembered((token: string) => {
    const granted = grantOf(known, token)
    const { session } = granted.grant
    return [
      ...ownBans(known, granted, bound),
      ...(session ? ofSession(session.name) : epochBans(known, granted)),
    ]
  })
  return { ofSession, ofToken }
}

/**
 * Calls that ended the session by its name. A revocation by an access token that is no longer valid names no session, but still
 * gets a 200 (RFC 7009 2.2). Its answer therefore acknowledges the end only if nothing else may have forbidden the token.
 */
function endsOf(known: Known, name: string, bound: number): Ban[] {
  return (known.enders.get(sessionKey(name)) ?? []).map(call => {
    const { act } = call
    const named = 'token' in act && act.does === 'revoke session' && act.by === 'access token'
    return banOf(call, acknowledged(call) && !(named && mayBeForbidden(known, act.token, call, bound)))
  })
}

/** Ignores ends of the token's session, since after one of those the question does not matter. */
function mayBeForbidden(known: Known, token: string, { recordAnswer }: Call, bound: number): boolean {
  const granted = grantOf(known, token)
  const began = granted.grant.session ? sessionOf(known, granted.grant.session.name) : granted
  const others = [...ownBans(known, granted, bound), ...epochBans(known, began)]
  return mayHaveExpired(granted, recordAnswer, bound) || others.some(({ askedAt }) => askedAt <= recordAnswer)
}

/** Bans of this access token but not its session: its own revocation, and the end of the secret that signed it. */
function ownBans(known: Known, granted: Granted, bound: number): Ban[] {
  const { token, customer, version } = granted.grant
  const expired = (call: Call) => mayHaveExpired(granted, call.recordAnswer, bound)
  const revoked = (known.enders.get(tokenKey(token)) ?? []).map(call =>
    // Revoking an expired token has no effect.
    banOf(call, acknowledged(call) && !expired(call)),
  )
  const rotated = (known.enders.get(customerKey(customer)) ?? [])
    .filter(call => ends(call, 'access') && mayConcern(call, granted))
    .map(call => banOf(call, acknowledged(call) && version < (call.versions?.access ?? 0)))
  return [...revoked, ...rotated]
}

/** Revocations of a whole subject or customer; they cover what began before. */
function epochBans(known: Known, began: Granted): Ban[] {
  const { customer, subject } = began.grant
  const ofCustomer = known.enders.get(customerKey(customer)) ?? []
  const ofSubject = known.enders.get(subjectKey(customer, subject)) ?? []
  return [
    ...ofSubject,
    ...ofCustomer.filter(call => call.act.does === 'revoke customer' || ends(call, 'refresh')),
  ]
    .filter(call => mayConcern(call, began))
    .map(call => banOf(call, acknowledged(call) && began.call.recordAnswer < call.sentAt))
}

/** `rotate now`. A rotation of the refresh secret raises the customer's epoch. */
const ends = ({ act }: Call, use: Use) => act.does === 'rotate' && (act.uses === use || act.uses === 'both')

/** False if the grant was requested after the act was done, because such a grant began after it. */
const mayConcern = (call: Call, granted: Granted) => settledAt(call) >= askedSince(granted.call)

const acknowledged = (call: Call) => outcomeOf(call) === 'yes'

const banOf = (call: Call, holds: boolean): Ban => ({
  call,
  askedAt: call.sentAt,
  heldAt: holds ? call.recordAnswer : Number.POSITIVE_INFINITY,
})

/**
 * The time after the acknowledgement in which a yes may still be sent: N, or the age that the replica reports. It is 0 after
 * wait=all, after a rotation with `now`, for a strict request, and at the replica that performed the act.
 */
export function allowance(decision: Call, { call }: Ban, bound: number): number {
  const { act } = call
  const everywhere = act.does === 'rotate' || ('wait' in act && act.wait)
  const strict = 'strict' in decision.act && decision.act.strict
  if (everywhere || strict || actedAt(decision.replica, call)) return 0
  return Math.min(bound + SLACK, decision.age ?? Number.POSITIVE_INFINITY)
}

/** A session may have been ended by another act at another replica; only a 204 for its id proves that this act ended it. */
function actedAt(replica: number | undefined, { replica: at, act, status }: Call): boolean {
  const ownAct = act.does !== 'revoke session' || (act.by === 'id' && status === 204)
  return at === replica && ownAct
}

function remembered<Value>(make: (name: string) => Value): (name: string) => Value {
  const made = new Map<string, Value>()
  return name => {
    const value = made.get(name) ?? make(name)
    made.set(name, value)
    return value
  }
}
