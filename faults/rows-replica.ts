import { setTimeout as sleep } from 'node:timers/promises'
import { fault, kept, type Seen } from './fault.ts'
import { stateOf } from './processes.ts'
import type { Stage } from './stage.ts'

/** Faults of one replica's process: it stops, as a whole or in its event loop, and continues with the state that it had. */

const VICTIM = 1
const pidOf = ({ replicas }: Stage) => replicas[VICTIM]!.process.pid

/** Requests sent when it stopped were answered only when it continued, at least this much later (ms). */
const STILL = 2_500

export const replicaFaults = [
  fault({
    name: 'replica SIGSTOP for 3 s',
    lasts: 2_500,
    async inject(stage) {
      process.kill(pidOf(stage), 'SIGSTOP')
      await sleep(500)
      return stateOf(pidOf(stage))
    },
    heal: stage => void process.kill(pidOf(stage), 'SIGCONT'),
    felt: (seen, state) => state === 'T' && kept(seen, VICTIM, STILL).length > 0,
  }),
  fault({
    name: 'event loop stalled for 3 s',
    lasts: 3_000,
    // Reading its metrics resets its own measurement, so leave it time to measure before and after.
    async inject(stage) {
      await sleep(100)
      process.kill(pidOf(stage), 'SIGUSR2')
    },
    async heal({ replicas }) {
      await fetch(`${replicas[VICTIM]!.process.url}/healthz`)
      await sleep(100)
    },
    felt: seen => stalled(seen) > STILL / 1_000 && kept(seen, VICTIM, STILL).length > 0,
  }),
]

/** The maximum event loop delay that the victim measured (s). */
const stalled = ({ after, recovered }: Seen) => Math.max(after[VICTIM]!.stalled, recovered[VICTIM]!.stalled)
