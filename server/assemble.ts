import { availableParallelism } from 'node:os'
import type { Database } from '../db/client.ts'
import type { Redis } from '../db/redis.ts'
import { observing } from '../db/revocations.ts'
import { createApp } from './app.ts'
import { Audit } from './audit.ts'
import { Bus } from './bus.ts'
import type { Clock } from './clock.ts'
import type { Config } from './config.ts'
import { Creation } from './creation.ts'
import { Credentials } from './credentials.ts'
import { randomId } from './crypto/secret.ts'
import { Customers } from './customers.ts'
import { Directory } from './directory.ts'
import { Explainer } from './explaining.ts'
import { Gate } from './gate.ts'
import { Hints } from './hints.ts'
import type { ProcessState } from './http/context.ts'
import { Issuer } from './issuing.ts'
import { Keys } from './keys.ts'
import { type Limits, LimitsInMemory, LimitsInRedis } from './limits.ts'
import type { Log } from './log.ts'
import { Maintenance, type MaintenanceOptions } from './maintenance.ts'
import { Metrics } from './metrics.ts'
import { Operators } from './operators.ts'
import { TrustedProxies } from './proxies.ts'
import type { Vault } from './records.ts'
import { Replicas } from './replicas.ts'
import { Retirement } from './retirement.ts'
import { Revocations } from './revocations.ts'
import { Revoker } from './revoking.ts'
import { Secrets } from './secrets.ts'
import { Servers } from './servers.ts'
import { Sessions } from './sessions.ts'
import { Shelf } from './shelf.ts'
import { Tokens } from './tokens.ts'
import { tracedApp, tracedDatabase, tracedRedis } from './traced.ts'
import { tracingOfSdk } from './tracing.ts'

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
