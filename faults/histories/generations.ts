import { SLACK } from '../checker.ts'
import { type Call, outcomeOf, settledAt } from './call.ts'
import type { Known } from './known.ts'

/** The default of REFRESH_GRACE (ms). */
export const GRACE = 10_000

/** The knowledge of an outside observer about when each generation of a session was made. */
interface Line {
  /** The generation that the session had reached for certain when a call was sent at `at`, because a client had received it. */
  lowest(at: number): number
  /** The highest generation that the session may have reached, because a client had requested it. */
  highest(at: number): number
  madeEarliest(gen: number): number
  madeLatest(gen: number): number
}

function lineOf(refreshes: Call[]): Line {
  const asked = refreshes.map(({ act, sentAt }) => ({ gen: genOf(act) + 1, at: sentAt }))
  const given = refreshes.flatMap(({ granted, recordAnswer }) =>
    granted?.session ? [{ gen: granted.session.gen, at: recordAnswer }] : [],
  )
  const most = (list: typeof asked, until: number) =>
    list.reduce((gen, one) => (one.at < until ? Math.max(gen, one.gen) : gen), 1)
  const first = (list: typeof asked) =>
    list.reduce((at, one) => Math.min(at, one.at), Number.POSITIVE_INFINITY)
  return {
    lowest: at => most(given, at),
    highest: at => most(asked, at),
    madeEarliest: gen => first(asked.filter(one => one.gen === gen)),
    madeLatest: gen => first(given.filter(one => one.gen >= gen)),
  }
}

const genOf = (act: Call['act']) => (act.does === 'refresh' ? act.gen : 0)

export interface Judged {
  call: Call
  /** Whether the refresh table in docs/architecture.md allows this to be a reuse: the token was replaced, and not recently. */
  mayBeReuse: boolean
  mustBeReuse: boolean
  /** The answer has a generation that is not after the one presented, or that is older than one returned before. */
  wentBack: boolean
}

/** All refreshes of a session, each compared with the refresh table in docs/architecture.md for the states that were possible. */
export function judgeRefreshes(known: Known, session: string): Judged[] {
  const refreshes = known.refreshes.get(session) ?? []
  const line = lineOf(refreshes)
  const usedAt = (gen: number) => known.firstUse.get(`${session}.${gen}`) ?? Number.POSITIVE_INFINITY
  return refreshes.map(call => {
    const next = call.granted?.session?.gen
    return {
      call,
      mayBeReuse: mayBeReuse(call, line, usedAt),
      mustBeReuse: mustBeReuse(call, line),
      wentBack: next !== undefined && (next <= genOf(call.act) || next < line.lowest(call.sentAt)),
    }
  })
}

/**
 * Counts generations by what had been requested when the token was sent. Later requests race with this one, and a race ends no
 * session. The grace period is checked at the latest time at which the server may have judged the request.
 */
function mayBeReuse(call: Call, line: Line, usedAt: (gen: number) => number): boolean {
  const gen = genOf(call.act)
  const ahead = line.highest(call.sentAt) - gen
  if (ahead <= 0) return false
  if (ahead >= 3) return true
  const judgedAt = settledAt(call)
  if (judgedAt < line.madeEarliest(gen + 1) + GRACE) return false
  // A token that was replaced once counts as a retry after a lost answer until its successor has been used.
  return ahead === 2 || judgedAt >= usedAt(gen + 1) + GRACE
}

/** Ignores the use of an access token, which is recorded later or not at all. */
function mustBeReuse({ act, sentAt }: Call, line: Line): boolean {
  const ahead = line.lowest(sentAt) - genOf(act)
  return ahead >= 3 || (ahead === 2 && sentAt > line.madeLatest(genOf(act) + 1) + GRACE + SLACK)
}

/** Presentations that ended the session, or that may have. */
export const thefts = (judged: Judged[]): Call[] =>
  judged
    .filter(({ call, mayBeReuse }) => call.error === 'reuse' || (mayBeReuse && outcomeOf(call) === 'unknown'))
    .map(({ call }) => call)

/** Generations for which more than one string was issued. */
export function forks(refreshes: Call[]): Call[][] {
  const texts = Map.groupBy(
    refreshes.filter(({ granted }) => granted?.session),
    ({ granted }) => granted!.session!.gen,
  )
  return [...texts.values()].filter(calls => new Set(calls.map(c => c.granted!.session!.text)).size > 1)
}
