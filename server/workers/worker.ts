import cluster from 'node:cluster'
import { open } from '../../db/client.ts'
import { exitNow } from '../exit.ts'
import { describeFailure } from '../exit-codes.ts'
import type { Clock } from '../lib/clock.ts'
import { RateLimitedError } from '../lib/errors.ts'
import { createLog, standardOutput } from '../lib/logger.ts'
import { type Served, serve } from '../serve.ts'
import type { Worker } from '../services.ts'
import { exitOnUncaught, ignoreSignals } from '../shutdown.ts'
import type { AskedOfPrimary, AskedOfWorker } from './protocol.ts'
import { Link } from './rpc.ts'

/** How long the primary may take to answer (ms): it does nothing but hand on connections, and count. */
const CALL_TIMEOUT_MS = 2_000
/** The same while many start at once. */
const START_TIMEOUT_MS = 20_000

type Primary = Link<AskedOfPrimary, AskedOfWorker>
type Settings = Awaited<ReturnType<AskedOfPrimary['settings']>>

/** This process as one of several on a port. It has its settings from the primary, and obeys it alone. */
export async function work(clock: Clock): Promise<void> {
  // Ctrl-C reaches every process of the terminal: what it means is for the primary to say.
  ignoreSignals()
  const self = cluster.worker!
  const { promise: served, resolve } = Promise.withResolvers<Served>()
  const primary: Primary = new Link(self, {
    metrics: async () => (await served).numbers(),
    drain: async pause => void (await served).drain(pause),
  })
  const settings = await primary.ask('settings', undefined, START_TIMEOUT_MS)
  try {
    const made = await start(settings, primary, clock)
    resolve(made)
    self.on('disconnect', () => {
      // The primary is gone. Node would end this process at once; what is under way may end first.
      self.exitedAfterDisconnect = true
      void made.drain(0)
    })
  } catch (error) {
    const failure = describeFailure(error)
    await primary.ask('failed', failure, CALL_TIMEOUT_MS).catch(() => {})
    exitNow(failure.code)
  }
}

async function start({ config, number, of }: Settings, primary: Primary, clock: Clock): Promise<Served> {
  const log = createLog(config.logLevel, standardOutput()).child({ worker: number })
  const worker: Worker = { number, of, ...shared(primary) }
  const db = await open({ url: config.databaseUrl! })
  const served = await serve({ config, db, log, clock, worker })
  exitOnUncaught(log)
  return served
}

/** What all workers have together: the primary keeps it. While it doesn't answer, nothing is let through uncounted. */
function shared(primary: Primary): Pick<Worker, 'limits' | 'allMetrics'> {
  return {
    limits: {
      async take(limit, key) {
        const wait = await primary.ask('take', { limit, key }, CALL_TIMEOUT_MS)
        if (wait !== undefined) throw new RateLimitedError(wait)
      },
    },
    allMetrics: () => primary.ask('metrics', undefined, CALL_TIMEOUT_MS),
  }
}
