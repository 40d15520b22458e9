import { setTimeout as sleep } from 'node:timers/promises'
import { fault, kept, type Seen } from './fault.ts'
import { stateOf } from './processes.ts'
import type { Stage } from './stage.ts'

/** Faults of one replica's process: it stands still, as a whole or in its event loop, and goes on with what it knew. */

const VICTIM = 1
const pidOf = ({ replicas }: Stage) => replicas[VICTIM]!.process.pid

/** Requests that were sent to it when it stopped were answered when it went on (ms). */
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
    // Its own measure begins anew when it is asked for it: it has its time to take it, before and after.
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

/** The victim's own measure of its event loop (s). */
const stalled = ({ after, recovered }: Seen) => Math.max(after[VICTIM]!.stalled, recovered[VICTIM]!.stalled)
