import type { Decision, History, Revocation } from './history.ts'

/** Allowance on top of N for clock rounding and timer delays (ms). */
export const SLACK = 50

export interface Verdict {
  /** Accepted although sent later than acknowledgement + N + SLACK. */
  wrongYes: Decision[]
  /** Refused before any client had requested a revocation. */
  false401: Decision[]
  /** Any status other than yes, no or "not now" (503). */
  odd: (Decision | Revocation)[]
  /** The longest time from an acknowledgement to the sending of a request that was still accepted (ms). */
  worstStaleness: number
  /** Decisions that could have been a wrong yes. A history without any shows nothing. */
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

/** A revocation may already apply once it has been requested, so a 401 is correct from then on. */
const isFalse401 = ({ status, recordAnswer }: Decision, revocation: Revocation | undefined) =>
  status === 401 && recordAnswer < (revocation?.askedAt ?? Number.POSITIVE_INFINITY)

/** Merges several attempts per token: the earliest request and the earliest acknowledgement. */
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

/** The longest time between two consecutive 200s of one replica (ms). */
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

/** Describes each problem of a drill. Empty if the drill passed. */
export function problemsOf(verdict: Verdict, felt: boolean): string[] {
  const { wrongYes, false401, odd, tried } = verdict
  return [
    ...wrongYes.map(decision => `wrong yes: ${JSON.stringify(decision)}`),
    ...false401.map(decision => `false 401: ${JSON.stringify(decision)}`),
    ...odd.map(decision => `odd answer: ${JSON.stringify(decision)}`),
    ...(tried === 0 ? ['no revoked token was presented after the bound, so nothing is proven'] : []),
    ...(felt ? [] : ['the fault had no effect']),
  ]
}
