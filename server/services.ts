import type { Database } from '../db/client.ts'
import { observing } from '../db/queries/change-feed.ts'
import type { Redis } from '../db/redis.ts'
import { OrderWaiters } from './audit/order-waiters.ts'
import { AuditSequencer } from './audit/sequencer.ts'
import { ClientAuthenticator } from './clients/authenticate.ts'
import { Operators } from './clients/operators.ts'
import { ServiceClients } from './clients/service-clients.ts'
import type { Config } from './config/load.ts'
import { randomId } from './crypto/credentials.ts'
import type { KeyRing } from './crypto/key-ring.ts'
import { MAX_PASSWORD_THREADS } from './crypto/password-threads.ts'
import { KeyCache } from './keys/key-cache.ts'
import { RedisKeyCache } from './keys/redis-cache.ts'
import { BatchBytes } from './lib/batch-bytes.ts'
import { BodyMemory } from './lib/body-memory.ts'
import { ClientIps } from './lib/client-ip.ts'
import type { Clock } from './lib/clock.ts'
import { ConcurrencyLimit } from './lib/concurrency-limit.ts'
import type { Log } from './lib/logger.ts'
import { Metrics } from './lib/metrics.ts'
import { OnePerKey } from './lib/one-per-key.ts'
import { MemoryRateLimiter, type RateLimiter, RedisRateLimiter } from './lib/rate-limiter.ts'
import { RedisNames } from './lib/redis-names.ts'
import { droppedLogLines } from './lib/standard-output.ts'
import { ChangeFeed } from './revocation/change-feed.ts'
import { ClockWatch } from './revocation/clock-watch.ts'
import { RedisNotifier } from './revocation/notify.ts'
import { RevocationList } from './revocation/revocation-list.ts'
import { Revoker } from './revocation/revoker.ts'
import { Authenticator } from './tokens/authenticator.ts'
import { IntrospectionSigner } from './tokens/introspection-signer.ts'
import { IssuedUntil } from './tokens/issued-until.ts'
import { Issuer } from './tokens/issuer.ts'
import { TokenQuota } from './tokens/quota.ts'
import { Sessions } from './tokens/refresh.ts'
import { Signatures } from './tokens/signatures.ts'
import { TokenSigner } from './tokens/signer.ts'
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

/** State that only the process itself knows. */
export interface ProcessState {
  draining(): boolean
  /** Whether the database answers and has this version's migrations. Throws when it doesn't answer. */
  migrated(): Promise<boolean>
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

/**
 * The deadline of a poll (ms). A poll takes milliseconds. If it was lost on a broken link, it must end within a second after the
 * link has recovered.
 */
const POLL_DEADLINE_MS = 800
/** Memory for tokens that were authenticated before; 50,000 typical ones. */
const TOKEN_CACHE_BYTES = 64 * 2 ** 20
/** Maximum number of logins that wait for a core. */
const MAX_QUEUED_LOGINS = 64
/**
 * Limits on statements that serve one customer only: how many run at a time, so that acts that share statements always have
 * connections of the pool, and how many wait. Lists and counts read thousands of rows, so they run one at a time and take at
 * most one core of the database. The embedded database has one connection.
 */
const MAX_TURNS = 2
const MAX_READS = 1
/** An RSA key takes a tenth of a second of one of libuv's four threads, which also make and verify signatures. */
const MAX_KEY_CHANGES = 1
const MAX_EMBEDDED_TURNS = 1
const MAX_QUEUED_TURNS = 1_000

/** Everything that routes and the functions of the domain use. */
export type Services = ReturnType<typeof createServices>

/** Builds what one replica consists of, without its routes. */
export function createServices(parts: Parts) {
  const { config, redis, keyRing, clock, log, process, worker } = parts
  const { issuer: iss, maxStaleness } = config
  const metrics: Metrics = new Metrics(
    {
      busAge: () => changeFeed.age / 1000,
      maxAnswerAge: () => changeFeed.maxAnswerAge / 1000,
      changeFeed: () => changeFeed.counts,
      reloads: () => changeFeed.reloads,
      revocations: () => revocations.size,
      customers: () => keys.size,
      database: () => db.usage(),
      auditLag: () => sequencer.lag,
      bodyBytes: () => bodyMemory.bytes,
      tokenCache: () => authenticator.stats,
      redisKeyCache: () => redisKeyCache?.counts ?? new Map(),
      redisFailures: () => redis?.failures() ?? 0,
      clockHeld: () => clockWatch.isHeld,
      droppedLogLines,
    },
    { process: parts.processMetrics, worker },
  )
  const db = observing(parts.db, seconds => metrics.lockWaited(seconds))
  const clockWatch: ClockWatch = new ClockWatch({ db, clock, log })
  const replica = randomId(15)
  const orderWaiters = new OrderWaiters({ db })
  const sequencer: AuditSequencer = new AuditSequencer({ db, clock, log, orderWaiters })
  const revocations = new RevocationList()
  const bodyMemory = new BodyMemory()
  const authenticator = new Authenticator({ issuer: iss, maxCacheBytes: share(TOKEN_CACHE_BYTES, worker) })
  const forget = {
    one(id: string) {
      keys.forget.one(id)
      serviceClients.forget.one(id)
    },
    all() {
      keys.forget.all()
      serviceClients.forget.all()
      authenticator.clear()
    },
  }
  const redisNames = new RedisNames(keyRing, () => changeFeed.timeline)
  const hints = redis && new RedisNotifier(redis, redisNames, () => changeFeed.wake())
  const published = () => hints?.send()
  const connection = db.connection(Math.min(maxStaleness / 2, POLL_DEADLINE_MS))
  const feed = { connection, db, clock, maxStaleness, replica, revocations, forget, published, log }
  const changeFeed: ChangeFeed = new ChangeFeed(feed)
  const redisKeyCache = redis && new RedisKeyCache({ redis, keyRing, names: redisNames, changeFeed })
  const keys: KeyCache = new KeyCache({
    db,
    keyRing,
    issuer: iss,
    changeFeed,
    revocations,
    redisKeyCache,
    log,
  })
  const signatures = new Signatures()
  const tokens = new TokenVerifier({ authenticator, changeFeed, keys, revocations, signatures })
  const limits = createLimits(parts, redisNames)
  const turns = new ConcurrencyLimit(
    db.kind === 'embedded' ? MAX_EMBEDDED_TURNS : MAX_TURNS,
    share(MAX_QUEUED_TURNS, worker),
  )
  const quota = new TokenQuota({ keys, clock, config })
  const reads =
    db.kind === 'embedded' ? turns : new ConcurrencyLimit(MAX_READS, share(MAX_QUEUED_TURNS, worker))
  const keyChanges = new ConcurrencyLimit(MAX_KEY_CHANGES, share(MAX_QUEUED_TURNS, worker))
  const issuedUntil = new IssuedUntil({ db, turns, config, log })
  const issuer = new Issuer({
    db,
    turns,
    issuedUntil,
    quota,
    signer: new TokenSigner({ keys, signatures, issuer: iss }),
    config,
  })
  const revoker = new Revoker({ db, changeFeed, revocations, limits, turns })
  const sessions = new Sessions({ db, turns, issuedUntil, quota, issuer, revoker, config, metrics, log })
  const serviceClients: ServiceClients = new ServiceClients({ db, changeFeed, keyRing, revocations })
  const clients = new ClientAuthenticator({ db, changeFeed, keys, serviceClients, config, log })
  const passwordHashing = new ConcurrencyLimit(
    share(MAX_PASSWORD_THREADS, worker),
    share(MAX_QUEUED_LOGINS, worker),
  )
  return {
    config,
    clock,
    clockWatch,
    log,
    db,
    keyRing,
    process,
    /** This process's random name among the replicas. */
    replica,
    metrics,
    limits,
    passwordHashing,
    turns,
    reads,
    keyChanges,
    changeFeed,
    revocations,
    revoker,
    sequencer,
    orderWaiters,
    keys,
    redisKeyCache,
    redisNames,
    tokens,
    introspectionSigner: new IntrospectionSigner({ keyRing, issuer: iss, changeFeed, signatures }),
    issuer,
    sessions,
    clients,
    serviceClients,
    operators: new Operators(config),
    clientIps: new ClientIps(config.trustProxy, log),
    bodyMemory,
    /** Batches of introspection, by credential. */
    batches: new OnePerKey(),
    batchBytes: new BatchBytes(clock),
  }
}

/** Limits are counted across all replicas with Redis, otherwise across all workers or in this process. */
const createLimits = ({ redis, worker }: Parts, names: RedisNames): RateLimiter =>
  redis ? new RedisRateLimiter({ redis, names }) : (worker?.limits ?? new MemoryRateLimiter())

/** Divides a limit of the machine among the workers. Each gets at least 1. */
const share = (whole: number, worker: Worker | undefined) =>
  Math.max(1, Math.floor(whole / (worker?.of ?? 1)))
