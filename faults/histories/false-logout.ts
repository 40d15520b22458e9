import type { Bans } from './bans.ts'
import { type Call, decidedToken, outcomeOf, settledAt } from './call.ts'
import { mayHaveExpired } from './expiry.ts'
import { judgeRefreshes } from './generations.ts'
import { customerKey, grantOf, type Known, subjectKey } from './known.ts'
import type { Violation } from './violation.ts'

/** Promise 2, never a false logout: a client is refused only after someone requested the end of its token or session. */
export function falseLogouts(known: Known, bans: Bans, bound: number): Violation[] {
  const refused = known.calls.filter(call => outcomeOf(call) === 'no')
  return [
    ...refused.flatMap(call => falseRefusal(known, bans, call, bound)),
    ...refused.flatMap(call => falseEnd(bans, call)),
    ...refused.flatMap(call => falseConflict(known, call)),
    ...[...known.refreshes.keys()].flatMap(session => falseTheft(known, session)),
  ]
}

function falseRefusal(known: Known, bans: Bans, call: Call, bound: number): Violation[] {
  const token = decidedToken(call)
  if (token === undefined || mayHaveExpired(grantOf(known, token), call.recordAnswer, bound)) return []
  const right = bans.ofToken(token).some(({ askedAt }) => askedAt <= call.recordAnswer)
  return right ? [] : [{ what: 'a live token was refused', calls: [call], about: [token] }]
}

function falseEnd(bans: Bans, call: Call): Violation[] {
  if (call.act.does !== 'refresh' || call.error === 'reuse') return []
  const { session } = call.act
  const right = bans.ofSession(session).some(({ askedAt }) => askedAt <= call.recordAnswer)
  return right ? [] : [{ what: 'the refresh of a live session was refused', calls: [call], about: [session] }]
}

/** Retries, parallel tabs and lost answers are not theft. */
function falseTheft(known: Known, session: string): Violation[] {
  return judgeRefreshes(known, session)
    .filter(({ call, mayBeReuse }) => call.error === 'reuse' && !mayBeReuse)
    .map(({ call }) => ({ what: 'an honest refresh was called a reuse', calls: [call], about: [session] }))
}

/** A retry of an issue under the same key finds its session, unless that session has since been ended. */
function falseConflict(known: Known, call: Call): Violation[] {
  const { act } = call
  if (act.does !== 'issue') return []
  const ends = [customerKey(act.customer), subjectKey(act.customer, act.subject)]
    .flatMap(key => known.enders.get(key) ?? [])
    .filter(end => end.sentAt <= call.recordAnswer && settledAt(end) >= act.since)
  return ends.length > 0
    ? []
    : [{ what: 'a retry of an issue was refused', calls: [call], about: [act.subject] }]
}
