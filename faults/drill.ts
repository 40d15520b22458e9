import { setTimeout as sleep } from 'node:timers/promises'
import { until } from '../test/support/process.ts'
import { check, longestWithoutYes, problemsOf, type Verdict } from './checker.ts'
import type { Fault } from './fault.ts'
import type { History } from './history.ts'
import { type Load, startLoad } from './load.ts'
import { N, readingOf, type Stage } from './stage.ts'

/** The drill fails if the system has not recovered by then (ms). */
const RECOVERY_DEADLINE = 15_000

export interface Outcome {
  verdict: Verdict
  /** Time from healing until every replica answers from newer state and revocations are acknowledged (ms). */
  recovery: number
  /** The longest time in which a replica accepted nothing (ms). */
  longestWithoutYes: number
  /** Number of acknowledged revocations. */
  revocations: number
  problems: string[]
}

/** Injects one fault once, under load. */
export async function drill(stage: Stage, fault: Fault): Promise<Outcome> {
  const load = startLoad(stage)
  try {
    await whole(stage, load, performance.now())
    const { seen, mark, recovery } = await suffer(stage, fault, load)
    // Leaves time to present every token revoked so far after its bound.
    await sleep(N * 1.3)
    return judge(await load.stop(), recovery, [], await fault.felt(seen, mark, stage))
  } catch (error) {
    return judge(await load.stop(), Number.NaN, [String(error)])
  }
}

function judge(history: History, recovery: number, failures: string[], felt = true): Outcome {
  const verdict = check(history, N)
  return {
    verdict,
    recovery,
    longestWithoutYes: longestWithoutYes(history.decisions),
    revocations: history.revocations.filter(({ acknowledgedAt }) => acknowledgedAt !== undefined).length,
    problems: [...problemsOf(verdict, felt), ...failures],
  }
}

async function suffer(stage: Stage, fault: Fault, load: Load) {
  const readings = () => Promise.all(stage.replicas.map(readingOf))
  const before = await readings()
  const began = performance.now()
  const mark = await fault.inject(stage, load)
  await sleep(fault.lasts)
  await fault.heal(stage, mark)
  const healed = performance.now()
  const [recovery, after] = await Promise.all([whole(stage, load, healed), readings()])
  const recovered = await readings()
  const { history } = load
  const decisions = history.decisions.filter(
    ({ sentAt, recordAnswer }) => recordAnswer >= began && sentAt <= healed,
  )
  const revocations = history.revocations.filter(({ askedAt }) => askedAt >= began && askedAt <= healed)
  const seen = { before, after, recovered, decisions, revocations, lasted: healed - began }
  return { seen, mark, recovery }
}

/** Milliseconds from `since` until every replica answers from state read after `since` and a revocation is acknowledged. */
async function whole(stage: Stage, load: Load, since: number): Promise<number> {
  const anew = (replica: number) => async () => {
    if (!load.ready()) return false
    const { status, age, sentAt } = await load.verifyLive(replica)
    return status === 200 && age !== undefined && age < sentAt - since
  }
  const acknowledged = until('a revocation', () => load.acknowledgedSince(since), RECOVERY_DEADLINE)
  const verified = stage.replicas.map((_, replica) =>
    until(`replica ${replica} answers`, anew(replica), RECOVERY_DEADLINE),
  )
  await Promise.all([acknowledged, ...verified])
  return performance.now() - since
}
