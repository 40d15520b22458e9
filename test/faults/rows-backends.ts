import { setTimeout as sleep } from 'node:timers/promises'
import { fault, type Seen } from './fault.ts'
import { ask, N, type Stage } from './stage.ts'

/** Faults of connections and processes: backends that are ended, hints that don't come, a replica that stands still. */

const OURS = `datname = current_database() and application_name <> 'faults'`
/** The driver's listener says LISTEN once and nothing after it. */
const LISTENING = `${OURS} and query ilike 'listen %'`

/** Answers how many it ended. */
const end = async (stage: Stage, which: string) =>
  (await ask(stage, `select pg_terminate_backend(pid) from pg_stat_activity where ${which}`)).length

async function endRepeatedly(stage: Stage, which: string) {
  let ended = 0
  for (let round = 0; round < 4; round++) {
    ended += await end(stage, which)
    await sleep(N / 2)
  }
  return ended
}

const accepted = ({ replicas }: Stage) => replicas.map(({ link }) => link.counts.accepted)

/** Which replica stands still. */
const VICTIM = 1

/** Hints come some thirty times a second under this load; without them polls keep to their interval. */
const pollsASecond = ({ before, after, lasted }: Seen) =>
  before.map(({ polls }, replica) => ((after[replica]!.polls - polls) / lasted) * 1_000)

export const backendFaults = [
  fault({
    name: 'all backends killed',
    lasts: 0,
    async inject(stage) {
      const before = accepted(stage)
      return { before, ended: await endRepeatedly(stage, OURS) }
    },
    heal() {},
    // Each replica lost its connections and made others.
    felt: (_, { before, ended }, stage) =>
      ended >= 4 * before.length && accepted(stage).every((count, replica) => count > before[replica]!),
  }),
  fault({
    name: 'listener backend killed',
    lasts: 0,
    inject: stage => endRepeatedly(stage, LISTENING),
    heal() {},
    // More than one for each: they listened again, and were killed again.
    felt: (_, ended, stage) => ended > stage.replicas.length,
  }),
  fault({
    name: 'NOTIFY off',
    lasts: 3 * N,
    async inject(stage) {
      for (const { link } of stage.replicas) link.set({ silenceAt: 'listen "assay_bus"' })
      await end(stage, LISTENING)
    },
    // The deaf listeners' connections are reset, so that they listen again.
    heal(stage) {
      for (const { link } of stage.replicas) {
        void link.fair()
        link.resetAll()
      }
    },
    felt: seen => pollsASecond(seen).every(rate => rate < 8),
  }),
  fault({
    name: 'replica SIGSTOP for 3 s',
    lasts: 3_000,
    inject: async stage => void process.kill(stage.replicas[VICTIM]!.process.pid, 'SIGSTOP'),
    heal: stage => void process.kill(stage.replicas[VICTIM]!.process.pid, 'SIGCONT'),
    // Requests that were sent to it meanwhile waited until it went on.
    felt: ({ decisions }) =>
      decisions.some(({ replica, sentAt, answeredAt }) => replica === VICTIM && answeredAt - sentAt > 2_500),
  }),
]
