import { setTimeout as sleep } from 'node:timers/promises'
import { accepted, allConnectedSince, fault, polls } from './fault.ts'
import { ask, N, type Stage } from './stage.ts'

/** Faults of connections: backends that are ended, hints that don't come. */

const OURS = `datname = current_database() and application_name <> 'faults'`
/** The driver's listener says LISTEN once and nothing after it. */
const LISTENING = `${OURS} and query ilike 'listen %'`

/** Answers which ones it ended. */
const end = async (stage: Stage, which: string) =>
  (
    await ask<{ pid: number }>(
      stage,
      `select pid, pg_terminate_backend(pid) from pg_stat_activity where ${which}`,
    )
  ).map(({ pid }) => pid)

/** Four times; answers how many different ones it ended at each. */
async function endRepeatedly(stage: Stage, which: string) {
  const ended = new Set<number>()
  const rounds: number[] = []
  for (let round = 0; round < 4; round++) {
    const earlier = ended.size
    for (const pid of await end(stage, which)) ended.add(pid)
    rounds.push(ended.size - earlier)
    await sleep(N / 2)
  }
  return rounds
}

/** The first time each replica had one to end, and so it had later: whoever lost one made another. */
const everyone = (rounds: number[], { replicas }: Stage) =>
  rounds[0]! >= replicas.length && rounds.slice(1).some(ended => ended >= replicas.length)

export const backendFaults = [
  fault({
    name: 'all backends killed',
    lasts: 0,
    async inject(stage) {
      const before = accepted(stage)
      return { before, rounds: await endRepeatedly(stage, OURS) }
    },
    heal() {},
    felt: (_, { before, rounds }, stage) => everyone(rounds, stage) && allConnectedSince(before, stage),
  }),
  fault({
    name: 'listener backend killed',
    lasts: 0,
    inject: stage => endRepeatedly(stage, LISTENING),
    heal() {},
    felt: (_, rounds, stage) => everyone(rounds, stage),
  }),
  fault({
    name: 'NOTIFY off',
    lasts: 2 * N,
    async inject(stage) {
      for (const { link } of stage.replicas) link.set({ silenceAt: 'listen assay_changes' })
      const ended = await end(stage, LISTENING)
      await sleep(N)
      const listening = await ask(stage, `select 1 from pg_stat_activity where ${LISTENING}`)
      return { ended: ended.length, listening: listening.length }
    },
    // The deaf listeners' connections are reset, so that they listen again.
    async heal({ replicas }) {
      for (const { link } of replicas) {
        await link.fair()
        link.resetAll()
      }
    },
    // All listened and none does. With hints nearly each revocation causes a poll, and timers cause four more a second. Without
    // them there are only those four, and as many that report what they found.
    felt: (seen, { ended, listening }, { replicas }) =>
      ended === replicas.length &&
      listening === 0 &&
      polls(seen).every(count => count < seen.revocations.length),
  }),
]
