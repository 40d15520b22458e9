import cluster from 'node:cluster'
import { open } from '../../db/client.ts'
import { UrlFiles } from '../config/url-files.ts'
import { exitNow } from '../exit.ts'
import { describeFailure } from '../exit-codes.ts'
import type { Clock } from '../lib/clock.ts'
import { createLog } from '../lib/logger.ts'
import { limited } from '../lib/rate-limiter.ts'
import { standardOutput } from '../lib/standard-output.ts'
import { type Served, serve } from '../serve.ts'
import type { Worker } from '../services.ts'
import { exitOnUncaught, ignoreSignals } from '../shutdown.ts'
import type { PrimaryHandlers, WorkerHandlers, WorkerSettings } from './protocol.ts'
import { RpcChannel } from './rpc.ts'

/** The primary only passes on connections and counts, so it answers soon. */
const CALL_TIMEOUT_MS = 2_000
/** Longer, because many processes start at once. */
const START_TIMEOUT_MS = 20_000

type Primary = RpcChannel<PrimaryHandlers, WorkerHandlers>

/** Serves as one of several processes on a port. The settings and the order to end come from the primary. */
export async function work(clock: Clock): Promise<void> {
  // Ctrl-C reaches every process of the terminal. Only the primary reacts.
  ignoreSignals()
  const self = cluster.worker!
  const { promise: served, resolve } = Promise.withResolvers<Served>()
  const primary: Primary = new RpcChannel(self, {
    metrics: async () => (await served).numbers(),
    drain: async pauseMs => void (await served).drain(pauseMs),
  })
  const settings = await primary.call('settings', undefined, START_TIMEOUT_MS)
  try {
    const server = await start(settings, primary, clock)
    resolve(server)
    self.on('disconnect', () => {
      // The primary has ended. Node would end this process at once; this lets requests under way finish.
      self.exitedAfterDisconnect = true
      void server.drain(0)
    })
  } catch (error) {
    const failure = describeFailure(error)
    await primary.call('failed', failure, CALL_TIMEOUT_MS).catch(() => {})
    exitNow(failure.code)
  }
}

async function start(
  { config, number, of }: WorkerSettings,
  primary: Primary,
  clock: Clock,
): Promise<Served> {
  const log = createLog(config.logLevel, standardOutput(clock)).child({ worker: number })
  const worker: Worker = { number, of, ...createShared(primary) }
  const files = new UrlFiles({ config, clock, log })
  const url = config.databaseUrl!
  // The password may have changed since the primary read the settings.
  const db = await open({ url, reread: files.reader('DATABASE_URL', url) })
  const served = await serve({ config, db, files, log, clock, worker })
  exitOnUncaught(log)
  return served
}

/** The primary keeps what all workers share. While it doesn't answer, limited requests fail, because nothing may go uncounted. */
function createShared(primary: Primary): Pick<Worker, 'limits' | 'allMetrics'> {
  return {
    limits: {
      async take(limit, key) {
        const wait = await primary.call('take', { limit, key }, CALL_TIMEOUT_MS)
        if (wait !== undefined) throw limited(limit, wait)
      },
    },
    allMetrics: () => primary.call('metrics', undefined, CALL_TIMEOUT_MS),
  }
}
