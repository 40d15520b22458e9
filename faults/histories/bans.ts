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

/** Something that forbids a token, or ends a session. */
export interface Ban {
  call: Call
  /** From then on a no is right: it was asked for (ms). */
  askedAt: number
  /** From then on it holds: it was acknowledged. Infinity: it was not, or it may have missed this token. */
  heldAt: number
}

export type Bans = ReturnType<typeof bansOf>

/** `bound`: N, in milliseconds. */
export function bansOf(known: Known, bound: number) {
  /** Whatever the generation. */
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
 * By the session's name. An access token that is refused names nothing, and gets its 200 all the same (RFC 7009 2.2): then
 * the answer acknowledges only if nothing else may have forbidden the token.
 */
function endsOf(known: Known, name: string, bound: number): Ban[] {
  return (known.enders.get(sessionKey(name)) ?? []).map(call => {
    const { act } = call
    const named = 'token' in act && act.does === 'revoke session' && act.by === 'access token'
    return banOf(call, acknowledged(call) && !(named && mayBeForbidden(known, act.token, call, bound)))
  })
}

/** Not by the ends of its session, after which it doesn't matter. */
function mayBeForbidden(known: Known, token: string, { recordAnswer }: Call, bound: number): boolean {
  const granted = grantOf(known, token)
  const began = granted.grant.session ? sessionOf(known, granted.grant.session.name) : granted
  const others = [...ownBans(known, granted, bound), ...epochBans(known, began)]
  return mayHaveExpired(granted, recordAnswer, bound) || others.some(({ askedAt }) => askedAt <= recordAnswer)
}

/** Of this access token and not of its session: its own revocation, and the end of the secret that signed it. */
function ownBans(known: Known, granted: Granted, bound: number): Ban[] {
  const { token, customer, version } = granted.grant
  const expired = (call: Call) => mayHaveExpired(granted, call.recordAnswer, bound)
  const revoked = (known.enders.get(tokenKey(token)) ?? []).map(call =>
    // An expired one has nothing to revoke.
    banOf(call, acknowledged(call) && !expired(call)),
  )
  const rotated = (known.enders.get(customerKey(customer)) ?? [])
    .filter(call => ends(call, 'access') && mayConcern(call, granted))
    .map(call => banOf(call, acknowledged(call) && version < (call.versions?.access ?? 0)))
  return [...revoked, ...rotated]
}

/** Of all of a subject or a customer that began before. */
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

/** `rotate now`; of the refresh secret it moves the customer's epoch. */
const ends = ({ act }: Call, use: Use) => act.does === 'rotate' && (act.uses === use || act.uses === 'both')

/** Whatever was asked for after the act was done began after it. */
const mayConcern = (call: Call, granted: Granted) => settledAt(call) >= askedSince(granted.call)

const acknowledged = (call: Call) => outcomeOf(call) === 'yes'

const banOf = (call: Call, holds: boolean): Ban => ({
  call,
  askedAt: call.sentAt,
  heldAt: holds ? call.recordAnswer : Number.POSITIVE_INFINITY,
})

/**
 * How long after the acknowledgement a yes may still be sent for: by a replica that has not heard, N, or as long as it says
 * itself. Not after wait=all, not after a rotation with `now`, not with a strict question, and not at the replica that
 * acted.
 */
export function allowance(decision: Call, { call }: Ban, bound: number): number {
  const { act } = call
  const everywhere = act.does === 'rotate' || ('wait' in act && act.wait)
  const strict = 'strict' in decision.act && decision.act.strict
  if (everywhere || strict || actedAt(decision.replica, call)) return 0
  return Math.min(bound + SLACK, decision.age ?? Number.POSITIVE_INFINITY)
}

/** A session may have been ended by another's act, at another replica; only a 204 to its id says that it was this one. */
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
