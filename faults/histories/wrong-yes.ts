import { allowance, type Ban, type Bans } from './bans.ts'
import { type Call, decidedToken, outcomeOf } from './call.ts'
import { hasExpired } from './expiry.ts'
import { forks, judgeRefreshes } from './generations.ts'
import { grantOf, type Known } from './known.ts'
import type { Violation } from './violation.ts'

/** Promise 1, never a wrong yes: what is forbidden is not accepted later than the bound. `bound` is N (ms). */
export function wrongYes(known: Known, bans: Bans, bound: number): Violation[] {
  const accepted = known.calls.filter(call => outcomeOf(call) === 'yes')
  return [
    ...accepted.flatMap(call => wrongDecision(known, bans, call, bound)),
    ...accepted.flatMap(call => refreshAfterTheEnd(bans, call)),
    ...[...known.refreshes.keys()].flatMap(session => brokenLine(known, session)),
  ]
}

function wrongDecision(known: Known, bans: Bans, call: Call, bound: number): Violation[] {
  const token = decidedToken(call)
  if (token === undefined) return []
  const ban = bans.ofToken(token).find(ban => isLate(call, ban, bound))
  if (ban) return [{ what: 'a forbidden token was accepted', calls: [ban.call, call], about: [token] }]
  return hasExpired(grantOf(known, token), call.sentAt)
    ? [{ what: 'an expired token was accepted', calls: [call], about: [token] }]
    : []
}

/** Whether the call was sent when no replica may answer yes any more. */
export const isLate = (call: Call, ban: Ban, bound: number) =>
  call.sentAt > ban.heldAt + allowance(call, ban, bound)

/** The database decides about refreshes, so no staleness is allowed. */
function refreshAfterTheEnd(bans: Bans, call: Call): Violation[] {
  if (call.act.does !== 'refresh') return []
  const { session } = call.act
  const ban = bans.ofSession(session).find(({ heldAt }) => call.sentAt > heldAt)
  return ban
    ? [{ what: 'a session that had ended was refreshed', calls: [ban.call, call], about: [session] }]
    : []
}

/** No fork: a session has one line of generations, and every deviation from it is detected. */
function brokenLine(known: Known, session: string): Violation[] {
  const judged = judgeRefreshes(known, session)
  const missed = judged.filter(({ call, mustBeReuse }) => mustBeReuse && outcomeOf(call) === 'yes')
  const back = judged.filter(({ wentBack }) => wentBack)
  const violation = (what: string, calls: Call[]) => ({ what, calls, about: [session] })
  return [
    ...forks(judged.map(({ call }) => call)).map(calls => violation('a session has forked', calls)),
    ...missed.map(({ call }) => violation('a reuse was not detected', [call])),
    ...back.map(({ call }) => violation('a generation went back', [call])),
  ]
}
