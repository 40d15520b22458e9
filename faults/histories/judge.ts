import { type Bans, bansOf } from './bans.ts'
import { type Call, decidedToken, outcomeOf } from './call.ts'
import { falseLogouts } from './false-logout.ts'
import { type Facts, lostActs } from './kept.ts'
import { type Known, learn } from './known.ts'
import { oddAnswers } from './unknown.ts'
import type { Violation } from './violation.ts'
import { isLate, wrongYes } from './wrong-yes.ts'

export interface Judgement {
  violations: Violation[]
  /** The longest time from an acknowledgement to the sending of a request that was still accepted (ms). */
  worstStaleness: number
  /** Requests that would have been a wrong yes if accepted. A history without any shows nothing. */
  tried: number
}

/**
 * Checks a history against promises 1 to 3, and with the facts read from the database afterwards against promise 5. `bound` is N
 * in milliseconds.
 */
export function judge(calls: Call[], bound: number, facts?: Facts): Judgement {
  const known = learn(calls)
  const bans = bansOf(known, bound)
  return {
    violations: [
      ...wrongYes(known, bans, bound),
      ...falseLogouts(known, bans, bound),
      ...oddAnswers(calls),
      ...(facts ? lostActs(known, bans, facts) : []),
    ],
    worstStaleness: worstStaleness(known, bans),
    tried: calls.filter(call => couldBeWrong(call, bans, bound)).length,
  }
}

function worstStaleness({ calls }: Known, bans: Bans): number {
  return calls.reduce((worst, call) => {
    const token = decidedToken(call)
    if (token === undefined || outcomeOf(call) !== 'yes') return worst
    return Math.max(worst, ...bans.ofToken(token).map(({ heldAt }) => call.sentAt - heldAt))
  }, 0)
}

function couldBeWrong(call: Call, bans: Bans, bound: number): boolean {
  const token = decidedToken(call)
  if (token !== undefined) return bans.ofToken(token).some(ban => isLate(call, ban, bound))
  if (call.act.does !== 'refresh') return false
  return bans.ofSession(call.act.session).some(({ heldAt }) => call.sentAt > heldAt)
}
