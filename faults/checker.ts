import type { Decision, History, Revocation } from './history.ts'

/** On top of N: what a clock's rounding and a timer may cost (ms). */
export const SLACK = 50

export interface Verdict {
  /** Accepted though sent later than acknowledgement + N + SLACK. */
  wrongYes: Decision[]
  /** Refused before anybody had asked for a revocation. */
  false401: Decision[]
  /** Neither yes, nor no, nor "not now". */
  odd: (Decision | Revocation)[]
  /** The longest time from an acknowledgement to the sending of a request that was still accepted (ms). */
  worstStaleness: number
  /** Decisions that could have been a wrong yes. With none of them a history shows nothing. */
  tried: number
  decisions: number
}

/** `bound` is N in milliseconds. */
export function check({ decisions, revocations }: History, bound: number): Verdict {
  const revoked = earliest(revocations)
  const since = (decision: Decision) =>
    decision.sentAt - (revoked.get(decision.token)?.acknowledgedAt ?? Number.POSITIVE_INFINITY)
  const late = (decision: Decision) => since(decision) > bound + SLACK
  const accepted = decisions.filter(({ status }) => status === 200)
  return {
    wrongYes: accepted.filter(late),
    false401: decisions.filter(decision => isFalse401(decision, revoked.get(decision.token))),
    odd: [
      ...decisions.filter(({ status }) => ![200, 401, 503].includes(status)),
      ...revocations.filter(({ status = 503 }) => ![200, 204, 503].includes(status)),
    ],
    worstStaleness: accepted.reduce((worst, decision) => Math.max(worst, since(decision)), 0),
    tried: decisions.filter(late).length,
    decisions: decisions.length,
  }
}

/** A revocation that was only asked for may hold already, so that a no is right from then on. */
const isFalse401 = ({ status, recordAnswer }: Decision, revocation: Revocation | undefined) =>
  status === 401 && recordAnswer < (revocation?.askedAt ?? Number.POSITIVE_INFINITY)

/** Of several tries the first that was asked for and the first that was acknowledged. */
function earliest(revocations: Revocation[]): Map<string, Revocation> {
  const first = new Map<string, Revocation>()
  for (const { token, askedAt, acknowledgedAt, status } of revocations) {
    const known = first.get(token)
    const acknowledged = [known?.acknowledgedAt, acknowledgedAt].filter(at => at !== undefined)
    first.set(token, {
      token,
      status,
      askedAt: Math.min(known?.askedAt ?? askedAt, askedAt),
      acknowledgedAt: acknowledged.length > 0 ? Math.min(...acknowledged) : undefined,
    })
  }
  return first
}

/** The longest time from one yes of a replica to the next (ms). */
export function longestWithoutYes(decisions: Decision[]): number {
  const last = new Map<number, number>()
  let longest = 0
  for (const { replica, status, recordAnswer } of decisions.toSorted(
    (a, b) => a.recordAnswer - b.recordAnswer,
  )) {
    if (status !== 200) continue
    longest = Math.max(longest, recordAnswer - (last.get(replica) ?? recordAnswer))
    last.set(replica, recordAnswer)
  }
  return longest
}

/** What is wrong with a drill, in words; empty for nothing. */
export function problemsOf(verdict: Verdict, felt: boolean): string[] {
  const { wrongYes, false401, odd, tried } = verdict
  return [
    ...wrongYes.map(decision => `wrong yes: ${JSON.stringify(decision)}`),
    ...false401.map(decision => `false 401: ${JSON.stringify(decision)}`),
    ...odd.map(decision => `odd answer: ${JSON.stringify(decision)}`),
    ...(tried === 0 ? ['no revoked token was presented after the bound: nothing is shown'] : []),
    ...(felt ? [] : ['the fault was not felt']),
  ]
}
