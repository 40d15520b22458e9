import type { Database } from '../db/client.ts'
import { isMigrated } from '../db/migration-files.ts'
import type { Redis } from '../db/redis.ts'
import { warnOfRepeatedNames } from './clients/service-clients.ts'
import { CredentialFiles } from './config/credential-files.ts'
import type { Config, Credentials } from './config/load.ts'
import type { UrlFiles } from './config/url-files.ts'
import type { SealingKey } from './crypto/envelope.ts'
import { exitNow } from './exit.ts'
import { loadKeyRing } from './keys/master-keys.ts'
import type { Clock } from './lib/clock.ts'
import type { Log } from './lib/logger.ts'
import type { MetricSnapshot } from './lib/metrics.ts'
import { writeMessage } from './lib/standard-output.ts'
import { listen } from './listen.ts'
import { startListener, warnIfMoved } from './open-database.ts'
import { createReplica } from './replica.ts'
import type { Worker } from './services.ts'
import { DRAIN_TIMEOUT_MESSAGE, MAX_DRAIN_MS } from './shutdown.ts'

/** The secrets from the settings or, with the embedded database, from its first start. */
export interface StartupSecrets {
  masterKeys: [SealingKey, ...SealingKey[]]
  adminToken: string
}

export interface ServeOptions {
  config: Config & StartupSecrets
  /** The opened and migrated database. */
  db: Database
  /** The files of URLs, which are read again when a server refuses a login. */
  files: UrlFiles
  log: Log
  clock: Clock
  worker?: Worker
  /** Called before the other replicas know of this one, with a function that removes it from the list of replicas. */
  joining?(leave: () => Promise<void>): void
}

export interface Served {
  port: number
  numbers(): Promise<MetricSnapshot>
  /**
   * Ends the process. `pause`: how long requests are still taken (ms), until every balancer has seen that this one is not
   * ready. A second call changes nothing.
   */
  drain(pause: number): Promise<void>
}

/** Runs one replica from its creation to the end of its process. */
export async function serve({
  config,
  db,
  files,
  log,
  clock,
  worker,
  joining,
}: ServeOptions): Promise<Served> {
  const keyRing = await loadKeyRing(db, config.masterKeys)
  await warnIfMoved(db, log)
  await warnOfRepeatedNames(db, config, log)
  let draining = false
  const state = { draining: () => draining, migrated: () => isMigrated(db) }
  const redis = await redisOf(config, files, log)
  const parts = { config, db, redis, keyRing, clock, log, process: state, worker }
  const replica = createReplica({ ...parts, processMetrics: true })
  const apply = (credentials: Credentials) => {
    replica.operators.replace(credentials)
    replica.clients.replaceConfigured(credentials)
  }
  const credentialFiles = new CredentialFiles({ config, apply, log })
  await credentialFiles.start()
  joining?.(() => replica.changeFeed.stop())
  await replica.changeFeed.start()
  replica.maintenance.start()
  replica.sequencer.start()
  const hints = startListener(config, replica.changeFeed, { files, log })
  const { app, metrics } = replica
  const server = await listen(app, config, { draining: state.draining, clock, log, metrics })

  async function drain(pause: number) {
    if (draining) return
    draining = true
    log.info('draining')
    setTimeout(endLate, pause + MAX_DRAIN_MS).unref()
    credentialFiles.stop()
    const closed = server.close(pause)
    // Not earlier, because until then a client that repeats its request would reach this server again and be answered at once.
    setTimeout(() => replica.orderWaiters.close(), pause)
    await closed
    await (await hints)?.close()
    await replica.stop()
    redis?.close()
    await db.close()
    log.info('ended')
    exitNow(0)
  }
  return { port: server.port, numbers: () => metrics.numbers(), drain }
}

function endLate(): never {
  writeMessage(DRAIN_TIMEOUT_MESSAGE)
  exitNow(1)
}

/** The driver is loaded only if Redis is used, because loading it takes a tenth of the time of a start. */
async function redisOf({ redisUrl }: Config, files: UrlFiles, log: Log): Promise<Redis | undefined> {
  if (redisUrl === undefined) return undefined
  const { openRedis } = await import('../db/redis.ts')
  return openRedis(redisUrl, log, { reread: files.reader('REDIS_URL', redisUrl) })
}
