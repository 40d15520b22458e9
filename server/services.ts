import { availableParallelism } from 'node:os'
import type { Database } from '../db/client.ts'
import { observing } from '../db/queries/change-feed.ts'
import type { Redis } from '../db/redis.ts'
import { createApp } from './app.ts'
import { Audit } from './audit/audit.ts'
import { Credentials } from './clients/authenticate.ts'
import { Operators } from './clients/operators.ts'
import { Servers } from './clients/resource-servers.ts'
import type { Config } from './config/load.ts'
import { randomId } from './crypto/credentials.ts'
import { Customers } from './customers/accounts.ts'
import { Directory } from './customers/admin.ts'
import { Creation } from './customers/provisioning.ts'
import type { ProcessState } from './http/env.ts'
import { tracedApp, tracedDatabase, tracedRedis } from './instrument.ts'
import { Maintenance, type MaintenanceOptions } from './jobs.ts'
import type { Vault } from './keys/customer-keys.ts'
import { Keys } from './keys/key-cache.ts'
import { Shelf } from './keys/redis-cache.ts'
import { Retirement } from './keys/retirement.ts'
import { Secrets } from './keys/rotation.ts'
import { TrustedProxies } from './lib/client-ip.ts'
import type { Clock } from './lib/clock.ts'
import { Gate } from './lib/concurrency-limit.ts'
import type { Log } from './lib/logger.ts'
import { Metrics } from './lib/metrics.ts'
import { type Limits, LimitsInMemory, LimitsInRedis } from './lib/rate-limiter.ts'
import { tracingOfSdk } from './lib/tracing.ts'
import { Bus } from './revocation/change-feed.ts'
import { Hints } from './revocation/notify.ts'
import { Replicas } from './revocation/replicas.ts'
import { Revocations } from './revocation/revocation-list.ts'
import { Revoker } from './revocation/revoker.ts'
import { Explainer } from './tokens/explain.ts'
import { Issuer } from './tokens/issuer.ts'
import { Sessions } from './tokens/refresh.ts'
import { Tokens } from './tokens/verifier.ts'

export interface Parts {
  config: Config
  db: Database
  redis: Redis | undefined
  vault: Vault
  clock: Clock
  log: Log
  process: ProcessState
  /** Whether /metrics tells of the process too. */
  processMetrics: boolean
  /** Where several processes serve the port: what this one shares with the others. */
  worker?: Worker | undefined
}

export interface Worker {
  /** From 1 to `of`. */
  number: number
  of: number
  /** Counted for all of them together. */
  limits: Limits
  /** Of all of them together, as Prometheus reads them. */
  allMetrics(): Promise<string>
}

/** A poll takes milliseconds; one that was lost with its link must be given up within a second of the link's return (ms). */
const POLL_DEADLINE = 800
/** Logins that wait for a core. */
const QUEUE = 64

/** One replica, from its parts. main.ts does it once, tests as often as they want replicas. */
export function assemble(given: Parts) {
  const tracing = tracingOfSdk(given.clock)
  const parts = tracing ? traced(given) : given
  const { config, redis, vault, clock, log, process, processMetrics, worker } = parts
  const { maxStaleness } = config
  const db = observing(parts.db, seconds => metrics.lockWaited(seconds))
  const revocations = new Revocations()
  const line = db.line(Math.min(maxStaleness / 2, POLL_DEADLINE))
  const forget = {
    one(id: string) {
      keys.forget.one(id)
      servers.forget.one(id)
    },
    all() {
      keys.forget.all()
      servers.forget.all()
    },
  }
  const hints = redis && new Hints(redis, vault, () => bus.poke())
  const published = () => hints?.send()
  const replica = randomId(15)
  const bus: Bus = new Bus({ line, clock, maxStaleness, replica, revocations, forget, published, log })
  const shelf = redis && new Shelf({ redis, vault, bus })
  const keys: Keys = new Keys({ db, vault, bus, revocations, shelf, log })
  const tokens = new Tokens({ bus, keys, revocations, issuer: config.issuer })
  const limits = limitsOf(parts)
  const issuer = new Issuer({ db, tokens, config })
  const revoker = new Revoker({ db, bus, limits })
  const sessions = new Sessions({
    db,
    issuer,
    revoker,
    config,
    decided: outcome => metrics.refreshed(outcome),
    log,
  })
  const servers: Servers = new Servers({ db, bus, vault, revocations, revoker })
  const credentials = new Credentials({ db, bus, keys, revoker, servers, config, log })
  const secrets = new Secrets({ db, bus, revoker, vault, limits, log })
  const retirement = new Retirement({ db, revoker, limits, config })
  // libuv has four threads: one stays free for DNS, or a flood of logins keeps the database from being found again.
  const gate = new Gate(Math.min(share(availableParallelism(), worker), 3), share(QUEUE, worker))
  const creation = new Creation({ db, vault, credentials, gate })
  const directory = new Directory({ db, revoker, gate, config })
  const { keyMaxAge, auditRetention } = config
  const ran: MaintenanceOptions['ran'] = (...told) => metrics.maintained(...told)
  const maintenance = new Maintenance({
    db,
    replica,
    directory,
    retirement,
    secrets,
    keyMaxAge,
    auditRetention,
    ran,
    log,
  })
  const customers = new Customers({
    db,
    keys,
    issuer,
    revoker,
    credentials,
    limits,
    gate,
    config,
  })
  const metrics: Metrics = new Metrics(
    {
      busAge: () => bus.age / 1000,
      longestAge: () => bus.longestAge / 1000,
      bus: () => bus.counts,
      revocations: () => revocations.size,
      customers: () => keys.size,
      database: () => db.load(),
      shelf: () => shelf?.counts ?? new Map(),
      redisFailures: () => redis?.failures() ?? 0,
    },
    { process: processMetrics, worker },
  )
  const proxies = new TrustedProxies(config.trustProxy, log)
  const audit = new Audit(db)
  const explainer = new Explainer({ db, bus, tokens, vault })
  const replicas = new Replicas(db)
  const operators = new Operators(config)
  const deps = {
    config,
    clock,
    bus,
    tokens,
    issuer,
    revoker,
    sessions,
    customers,
    credentials,
    secrets,
    retirement,
    audit,
    creation,
    directory,
    explainer,
    replicas,
    servers,
    operators,
    metrics,
    log,
    proxies,
    process,
  }
  const app = tracing ? tracedApp(createApp(deps), tracing) : createApp(deps)
  if (tracing) log.info('an OpenTelemetry SDK is loaded: it is told of requests')

  /** Writes what is still to be written, and leaves the bus. */
  async function stop() {
    await maintenance.stop()
    await Promise.all([sessions.flush(), credentials.flush()])
    await bus.stop()
    await line.close()
    await tracing?.flush()
  }

  return { app, bus, keys, revocations, sessions, credentials, secrets, maintenance, metrics, stop }
}

const traced = ({ db, redis, ...others }: Parts): Parts => ({
  ...others,
  db: tracedDatabase(db),
  redis: redis && tracedRedis(redis),
})

/** Counted as far together as can be: by all replicas, by all workers, or here. */
const limitsOf = ({ redis, vault, worker }: Parts): Limits =>
  redis ? new LimitsInRedis({ redis, vault }) : (worker?.limits ?? new LimitsInMemory())

/** What one worker has of what the machine has, and one at least. */
const share = (whole: number, worker: Worker | undefined) =>
  Math.max(1, Math.floor(whole / (worker?.of ?? 1)))
