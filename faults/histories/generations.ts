import { SLACK } from '../checker.ts'
import { type Call, outcomeOf, settledAt } from './call.ts'
import type { Known } from './known.ts'

/** REFRESH_GRACE, by default (ms). */
export const GRACE = 10_000

/** What is known of a session's generations from outside: between which moments each was made. */
interface Line {
  /** The generation that the session had for certain when a call was sent at `at`: somebody had been answered with it. */
  lowest(at: number): number
  /** The generation that it may have had: somebody had asked for it. */
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
  /** By the refresh table of docs/architecture.md it can have been a reuse: the token had a successor, and not of late. */
  mayBeReuse: boolean
  mustBeReuse: boolean
  /** It answered a generation that is not after the one presented, or older than one answered before. */
  wentBack: boolean
}

/** All refreshes of a session, each against the refresh table of docs/architecture.md as it may have stood. */
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
 * Generations by what had been asked when the token was sent: what others asked meanwhile is their race, which ends no
 * session. The grace by when it was judged at the latest.
 */
function mayBeReuse(call: Call, line: Line, usedAt: (gen: number) => number): boolean {
  const gen = genOf(call.act)
  const ahead = line.highest(call.sentAt) - gen
  if (ahead <= 0) return false
  if (ahead >= 3) return true
  const judgedAt = settledAt(call)
  if (judgedAt < line.madeEarliest(gen + 1) + GRACE) return false
  // One that was replaced once is a lost answer's retry for as long as nobody was seen with its successor.
  return ahead === 2 || judgedAt >= usedAt(gen + 1) + GRACE
}

/** Not by the use of an access token: that it was seen is written later, or not at all. */
function mustBeReuse({ act, sentAt }: Call, line: Line): boolean {
  const ahead = line.lowest(sentAt) - genOf(act)
  return ahead >= 3 || (ahead === 2 && sentAt > line.madeLatest(genOf(act) + 1) + GRACE + SLACK)
}

/** Presentations that ended the session, or were asked to and may have. */
export const thefts = (judged: Judged[]): Call[] =>
  judged
    .filter(({ call, mayBeReuse }) => call.error === 'reuse' || (mayBeReuse && outcomeOf(call) === 'unknown'))
    .map(({ call }) => call)

/** Generations of which more than one string was handed out. */
export function forks(refreshes: Call[]): Call[][] {
  const texts = Map.groupBy(
    refreshes.filter(({ granted }) => granted?.session),
    ({ granted }) => granted!.session!.gen,
  )
  return [...texts.values()].filter(calls => new Set(calls.map(c => c.granted!.session!.text)).size > 1)
}
