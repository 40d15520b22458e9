import { setTimeout as sleep } from 'node:timers/promises'
import { accepted, allConnectedSince, fault, polls } from './fault.ts'
import { ask, N, type Stage } from './stage.ts'

/** Faults of connections: terminated backends and missing hints. */

const OURS = `datname = current_database() and application_name <> 'faults'`
/** The driver's listener sends LISTEN once and nothing after it. */
const LISTENING = `${OURS} and query ilike 'listen %'`

/** Returns the pids of the terminated backends. */
const end = async (stage: Stage, which: string) =>
  (
    await ask<{ pid: number }>(
      stage,
      `select pid, pg_terminate_backend(pid) from pg_stat_activity where ${which}`,
    )
  ).map(({ pid }) => pid)

/** Terminates the backends four times. Returns how many new ones it found each time. */
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

/** Every replica had a backend to terminate in the first round and again in a later one, so each had reconnected. */
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
    // Resets the silenced listeners' connections, so that they listen again.
    async heal({ replicas }) {
      for (const { link } of replicas) {
        await link.fair()
        link.resetAll()
      }
    },
    // All replicas were listening and none is now. With hints, nearly every revocation causes a poll, in addition to four timer
    // polls a second. Without hints only those four remain, and as many polls that report what they found.
    felt: (seen, { ended, listening }, { replicas }) =>
      ended === replicas.length &&
      listening === 0 &&
      polls(seen).every(count => count < seen.revocations.length),
  }),
]
