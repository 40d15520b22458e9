import { availableParallelism } from 'node:os'
import type { Database } from '../db/client.ts'
import { observing } from '../db/queries/change-feed.ts'
import type { Redis } from '../db/redis.ts'
import { createApp } from './app.ts'
import { Audit } from './audit/audit.ts'
import { ClientAuthenticator } from './clients/authenticate.ts'
import { Operators } from './clients/operators.ts'
import { ResourceServers } from './clients/resource-servers.ts'
import type { Config } from './config/load.ts'
import { randomId } from './crypto/credentials.ts'
import type { KeyRing } from './crypto/key-ring.ts'
import { Accounts } from './customers/accounts.ts'
import { CustomerAdmin } from './customers/admin.ts'
import { Provisioning } from './customers/provisioning.ts'
import type { ProcessState } from './http/env.ts'
import { instrumentDatabase, instrumentRedis } from './instrument.ts'
import { Maintenance, type MaintenanceOptions } from './jobs.ts'
import { KeyCache } from './keys/key-cache.ts'
import { RedisKeyCache } from './keys/redis-cache.ts'
import { KeyRetirement } from './keys/retirement.ts'
import { KeyRotation } from './keys/rotation.ts'
import { ClientIps } from './lib/client-ip.ts'
import type { Clock } from './lib/clock.ts'
import { ConcurrencyLimit } from './lib/concurrency-limit.ts'
import type { Log } from './lib/logger.ts'
import { Metrics } from './lib/metrics.ts'
import { MemoryRateLimiter, type RateLimiter, RedisRateLimiter } from './lib/rate-limiter.ts'
import { tracingOfSdk } from './lib/tracing.ts'
import { ChangeFeed } from './revocation/change-feed.ts'
import { RedisNotifier } from './revocation/notify.ts'
import { Replicas } from './revocation/replicas.ts'
import { RevocationList } from './revocation/revocation-list.ts'
import { Revoker } from './revocation/revoker.ts'
import { Authenticator } from './tokens/authenticator.ts'
import { Explainer } from './tokens/explain.ts'
import { Issuer } from './tokens/issuer.ts'
import { Sessions } from './tokens/refresh.ts'
import { TokenVerifier } from './tokens/verifier.ts'

export interface Parts {
  config: Config
  db: Database
  redis: Redis | undefined
  keyRing: KeyRing
  clock: Clock
  log: Log
  process: ProcessState
  /** Whether /metrics includes process metrics. */
  processMetrics: boolean
  /** The resources that this worker shares with the others. Undefined if a single process serves the port. */
  worker?: Worker | undefined
}

export interface Worker {
  /** From 1 to `of`. */
  number: number
  of: number
  /** Rate limits that are counted for all workers together. */
  limits: RateLimiter
  /** Returns the metrics of all workers in Prometheus text format. */
  allMetrics(): Promise<string>
}

/** A poll takes milliseconds; one that was lost with its link must be given up within a second of the link's return (ms). */
const POLL_DEADLINE_MS = 800
/** Memory for tokens that were authenticated before; 50,000 typical ones. */
const TOKEN_CACHE_BYTES = 64 * 2 ** 20
/** Maximum number of logins that wait for a core. */
const MAX_QUEUED_LOGINS = 64

/** Creates one replica from its parts. Tests create several in one process. */
export function createServices(given: Parts) {
  const tracing = tracingOfSdk(given.clock)
  const parts = tracing ? traced(given) : given
  const { config, redis, keyRing, clock, log, process, processMetrics, worker } = parts
  const { maxStaleness } = config
  const db = observing(parts.db, seconds => metrics.lockWaited(seconds))
  const revocations = new RevocationList()
  const maxCacheBytes = share(TOKEN_CACHE_BYTES, worker)
  const authenticator = new Authenticator({ issuer: config.issuer, maxCacheBytes })
  const connection = db.connection(Math.min(maxStaleness / 2, POLL_DEADLINE_MS))
  const forget = {
    one(id: string) {
      keys.forget.one(id)
      resourceServers.forget.one(id)
    },
    all() {
      keys.forget.all()
      resourceServers.forget.all()
      authenticator.clear()
    },
  }
  const hints = redis && new RedisNotifier(redis, keyRing, () => changeFeed.wake())
  const published = () => hints?.send()
  const replica = randomId(15)
  const changeFeed: ChangeFeed = new ChangeFeed({
    connection,
    clock,
    maxStaleness,
    replica,
    revocations,
    forget,
    published,
    log,
  })
  const redisKeyCache = redis && new RedisKeyCache({ redis, keyRing, changeFeed })
  const keys: KeyCache = new KeyCache({ db, keyRing, changeFeed, revocations, redisKeyCache, log })
  const tokens = new TokenVerifier({ authenticator, changeFeed, keys, revocations, issuer: config.issuer })
  const limits = limitsOf(parts)
  const issuer = new Issuer({ db, tokens, config })
  const revoker = new Revoker({ db, changeFeed, limits })
  const sessions = new Sessions({
    db,
    issuer,
    revoker,
    config,
    decided: outcome => metrics.refreshed(outcome),
    log,
  })
  const resourceServers: ResourceServers = new ResourceServers({
    db,
    changeFeed,
    keyRing,
    revocations,
    revoker,
  })
  const clients = new ClientAuthenticator({ db, changeFeed, keys, revoker, resourceServers, config, log })
  const keyRotation = new KeyRotation({ db, changeFeed, revoker, keyRing, limits, log })
  const keyRetirement = new KeyRetirement({ db, revoker, limits, config })
  // libuv has four threads: one stays free for DNS, or a flood of logins keeps the database from being found again.
  const passwordHashing = new ConcurrencyLimit(
    Math.min(share(availableParallelism(), worker), 3),
    share(MAX_QUEUED_LOGINS, worker),
  )
  const provisioning = new Provisioning({ db, keyRing, clients, passwordHashing })
  const customerAdmin = new CustomerAdmin({ db, revoker, passwordHashing, config })
  const { keyMaxAge, auditRetention } = config
  const ran: MaintenanceOptions['ran'] = (...told) => metrics.maintained(...told)
  const maintenance = new Maintenance({
    db,
    replica,
    customerAdmin,
    keyRetirement,
    keyRotation,
    keyMaxAge,
    auditRetention,
    ran,
    log,
  })
  const accounts = new Accounts({
    db,
    keys,
    issuer,
    revoker,
    clients,
    limits,
    passwordHashing,
    config,
  })
  const metrics: Metrics = new Metrics(
    {
      busAge: () => changeFeed.age / 1000,
      maxAnswerAge: () => changeFeed.maxAnswerAge / 1000,
      changeFeed: () => changeFeed.counts,
      revocations: () => revocations.size,
      customers: () => keys.size,
      database: () => db.usage(),
      tokenCache: () => authenticator.stats,
      redisKeyCache: () => redisKeyCache?.counts ?? new Map(),
      redisFailures: () => redis?.failures() ?? 0,
    },
    { process: processMetrics, worker },
  )
  const clientIps = new ClientIps(config.trustProxy, log)
  const audit = new Audit(db)
  const explainer = new Explainer({ db, changeFeed, tokens, keyRing })
  const replicas = new Replicas(db)
  const operators = new Operators(config)
  const services = {
    config,
    clock,
    changeFeed,
    tokens,
    issuer,
    revoker,
    sessions,
    accounts,
    clients,
    keyRotation,
    keyRetirement,
    audit,
    provisioning,
    customerAdmin,
    explainer,
    replicas,
    resourceServers,
    operators,
    metrics,
    log,
    clientIps,
    process,
  }
  const app = createApp(services, tracing)
  if (tracing) log.info('an OpenTelemetry SDK is loaded: it is told of requests')

  /** Flushes pending writes and leaves the change feed. */
  async function stop() {
    await maintenance.stop()
    await Promise.all([sessions.flush(), clients.flush()])
    await changeFeed.stop()
    await connection.close()
    await tracing?.flush()
  }

  return { app, changeFeed, keys, revocations, sessions, clients, keyRotation, maintenance, metrics, stop }
}

const traced = ({ db, redis, ...others }: Parts): Parts => ({
  ...others,
  db: instrumentDatabase(db),
  redis: redis && instrumentRedis(redis),
})

/** Limits are counted across all replicas with Redis, otherwise across all workers or in this process. */
const limitsOf = ({ redis, keyRing, worker }: Parts): RateLimiter =>
  redis ? new RedisRateLimiter({ redis, keyRing }) : (worker?.limits ?? new MemoryRateLimiter())

/** Divides a limit of the machine among the workers. Each gets at least 1. */
const share = (whole: number, worker: Worker | undefined) =>
  Math.max(1, Math.floor(whole / (worker?.of ?? 1)))
