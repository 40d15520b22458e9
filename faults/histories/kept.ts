import type { Bans } from './bans.ts'
import { type Call, outcomeOf } from './call.ts'
import { customerKey, type Known, sessionKey, subjectKey, tokenKey } from './known.ts'
import { contradictedSession, type SessionFact } from './session-facts.ts'
import type { Violation } from './violation.ts'

/** The contents of the database at the end of the run, by names. */
export interface Facts {
  sessions: Map<string, SessionFact>
  /** Number of audit rows, by `eventKey`. */
  events: Map<string, number>
  secrets: { customer: string; use: string; version: number; state: string }[]
}

/** `of` is a key made by known.ts. */
export const eventKey = (type: string, of: string) => `${type} of ${of}`

/** Promise 5: nothing acknowledged is lost, nothing done is unaudited. */
export function lostActs(known: Known, bans: Bans, facts: Facts): Violation[] {
  const acknowledged = known.calls.filter(call => outcomeOf(call) === 'yes')
  return [
    ...unaudited(acknowledged, facts),
    ...[...known.grants.keys()].flatMap(token => unauditedRevocation(bans, token, facts)),
    ...[...known.sessions.keys()].flatMap(name =>
      contradictedSession(known, bans, name, facts.sessions.get(name)),
    ),
    ...acknowledged.flatMap(call => lostRotation(call, facts)),
    ...[...facts.events.keys()]
      .filter(key => key.startsWith('session.adopted '))
      .map(key => ({ what: 'the database lost a refresh', detail: key, calls: [], about: [] })),
  ]
}

const UNAUDITED = { what: 'an act is not in the audit', about: [] as string[] }

/** There must be at least as many rows as acknowledgements. An act whose answer was lost leaves a row too. */
function unaudited(acknowledged: Call[], { events }: Facts): Violation[] {
  const due = [...Map.groupBy(acknowledged, auditedAs)].filter(([key]) => key !== undefined)
  return due
    .map(([key, calls]) => ({ key, calls, rows: events.get(key!) ?? 0 }))
    .filter(({ calls, rows }) => rows < calls.length)
    .map(({ key, calls, rows }) => ({ ...UNAUDITED, detail: `${key}: ${rows} of ${calls.length}`, calls }))
}

/** Every issued token has its own row, and so has every act that always takes effect. Other acts may find nothing to do. */
function auditedAs({ act, granted, status }: Call): string | undefined {
  if (granted) return eventKey('token given', tokenKey(granted.token))
  if (act.does === 'revoke subject') return eventKey('subject.revoked', subjectKey(act.customer, act.subject))
  if (act.does === 'revoke customer') return eventKey('customer.revoked', customerKey(act.customer))
  if (act.does === 'rotate') return eventKey('secret.rotated', customerKey(act.customer))
  if (act.does === 'revoke session' && act.by === 'id' && status === 204)
    return eventKey('session.revoked', sessionKey(act.session))
  return undefined
}

/** A revocation may leave no row if the token was already invalid for another reason. */
function unauditedRevocation(bans: Bans, token: string, { events }: Facts): Violation[] {
  const own = bans.ofToken(token).filter(({ call }) => call.act.does === 'revoke token')
  const acknowledged = own.find(({ heldAt }) => heldAt < Number.POSITIVE_INFINITY)
  if (!acknowledged || events.has(eventKey('token.revoked', tokenKey(token)))) return []
  const otherwise = bans.ofToken(token).some(ban => !own.includes(ban) && ban.askedAt <= acknowledged.heldAt)
  return otherwise ? [] : [{ ...UNAUDITED, calls: [acknowledged.call], about: [token] }]
}

/** The returned version must exist, and after a rotation with `now` every older version must be retired. */
function lostRotation(call: Call, { secrets }: Facts): Violation[] {
  const { act, versions } = call
  if (act.does !== 'rotate') return []
  return Object.entries(versions ?? {}).flatMap(([use, version]) => {
    const own = secrets.filter(secret => secret.customer === act.customer && secret.use === use)
    const there = own.some(secret => secret.version === version)
    const old = act.now && own.some(secret => secret.version < version && secret.state !== 'retired')
    return there && !old
      ? []
      : [{ what: 'a rotation was lost', detail: use, calls: [call], about: [act.customer] }]
  })
}
