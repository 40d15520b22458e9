import { setTimeout as sleep } from 'node:timers/promises'
import { until } from '../test/support/process.ts'
import { check, longestWithoutYes, problemsOf, type Verdict } from './checker.ts'
import type { Fault } from './fault.ts'
import type { History } from './history.ts'
import { type Load, startLoad } from './load.ts'
import { N, readingOf, type Stage } from './stage.ts'

/** Everything works again by then, or the drill has failed (ms). */
const RECOVERY_DEADLINE = 15_000

export interface Outcome {
  verdict: Verdict
  /** From the healing until every replica answers from a state that is younger, and revocations are acknowledged (ms). */
  recovery: number
  /** The longest time that a replica accepted nothing (ms). */
  longestWithoutYes: number
  /** Revocations that were acknowledged. */
  revocations: number
  problems: string[]
}

/** One fault, once, under load. */
export async function drill(stage: Stage, fault: Fault): Promise<Outcome> {
  const load = startLoad(stage)
  try {
    await whole(stage, load, performance.now())
    const { seen, mark, recovery } = await suffer(stage, fault, load)
    // Whatever was acknowledged up to now is presented past its bound too.
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

/** Milliseconds from `since` until all of it works, on state that was read after it. */
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
