import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client'
import { REFRESH_OUTCOMES, type RefreshOutcome } from '../../db/queries/refresh.ts'
import { UNAVAILABLE, type UnavailableReason } from './errors.ts'

export type JobOutcome = 'ok' | 'failed' | 'skipped'

/** Values that are read at each scrape. */
export interface MetricSources {
  /** Seconds since the last applied poll was sent. */
  busAge(): number
  /** The greatest age of the state that an answer was based on (seconds). */
  maxAnswerAge(): number
  changeFeed(): { polls: number; failures: number; rows: number }
  /** Full reloads of the change feed, by their reason. */
  reloads(): ReadonlyMap<string, number>
  revocations(): number
  customers(): number
  database(): { calls: number; connections: number }
  /** Seconds since all committed audit events were last known to have positions. */
  auditLag(): number
  /** Bytes of request bodies in memory. */
  bodyBytes(): number
  /** Statistics of the cache of authenticated access tokens. */
  tokenCache(): { outcomes: ReadonlyMap<string, number>; tokens: number; bytes: number }
  /** Lookups of records in Redis, by outcome. */
  redisKeyCache(): ReadonlyMap<string, number>
  redisFailures(): number
  /** Whether a jump of the database's clock holds deletion. */
  clockHeld(): boolean
  droppedLogLines(): number
}

export interface MetricsOptions {
  /** Whether to include Node's process metrics. */
  process: boolean
  /** Set if several workers share a port: a scrape of one worker returns the metrics of all. */
  worker?: { number: number; allMetrics(): Promise<string> } | undefined
}

/** Metrics as numbers, so that those of several workers can be added up. */
export type MetricSnapshot = Awaited<ReturnType<Registry['getMetricsAsJSON']>>

/** Prometheus metrics. Label values come from closed sets, never from a request. */
export class Metrics {
  readonly #registry = new Registry()
  readonly #worker: MetricsOptions['worker']
  readonly #requests: Counter<'method' | 'route' | 'status'>
  readonly #seconds: Histogram<'route'>
  readonly #unavailable: Counter<'reason'>
  readonly #refreshed: Counter<'outcome'>
  readonly #lockWait: Histogram
  readonly #jobs: Counter<'task' | 'outcome'>
  readonly #removed: Counter<'task'>
  /**
   * A plain Map, because a label lookup at each verify would cost more than the rest of the counting. Some
   * outcomes should raise an alert at their first occurrence, so their series start at 0.
   */
  readonly #verified = new Map<string, number>([
    ['rule_malformed', 0],
    ['key_not_in_use', 0],
    ['claims_malformed', 0],
    ['wrong_customer', 0],
    ['server_error', 0],
  ])

  /** Set by the replica that maintains, once a minute. */
  deadRows = 0

  constructor(sources: MetricSources, { process, worker }: MetricsOptions) {
    const registers = [this.#registry]
    this.#worker = worker
    if (process) ofProcess(this.#registry, worker && String(worker.number))
    this.#requests = new Counter({
      name: 'assay_requests_total',
      help: 'Requests by method, route and status, except those of /verify, which assay_verified_total counts.',
      labelNames: ['method', 'route', 'status'],
      registers,
    })
    this.#seconds = new Histogram({
      name: 'assay_request_seconds',
      help: 'Duration of requests, by route.',
      labelNames: ['route'],
      buckets: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5],
      registers,
    })
    this.#unavailable = fromNothing(registers, 'reason', Object.keys(UNAVAILABLE), {
      name: 'assay_unavailable_total',
      help: '503 responses, by reason.',
    })
    this.#refreshed = fromNothing(registers, 'outcome', REFRESH_OUTCOMES, {
      name: 'assay_refreshed_total',
      help: 'Refreshes with an authentic refresh token, by outcome.',
    })
    this.#lockWait = lockWait(registers)
    this.#jobs = new Counter({
      name: 'assay_maintenance_jobs_total',
      help: 'Maintenance jobs, by task and outcome. skipped: another replica runs them for all.',
      // Prometheus reserves the label `job`.
      labelNames: ['task', 'outcome'],
      registers,
    })
    this.#removed = new Counter({
      name: 'assay_maintenance_removed_total',
      help: 'Rows that maintenance deleted, by task. A month of the audit that is dropped as a whole counts as one row.',
      labelNames: ['task'],
      registers,
    })
    byLabel(registers, 'outcome', {
      name: 'assay_verified_total',
      help: 'Access tokens verified, by outcome: ok, or the reason why the token was refused.',
      read: () => this.#verified,
    })
    byLabel(registers, 'outcome', {
      name: 'assay_record_cache_total',
      help: 'Lookups of customer records in Redis, by outcome: used, or the reason why not.',
      read: sources.redisKeyCache,
    })
    byLabel(registers, 'outcome', {
      name: 'assay_token_cache_total',
      help: "Lookups of access tokens in the token cache, by outcome: hit, miss, or rekeyed (the customer's keys were reloaded).",
      read: () => sources.tokenCache().outcomes,
    })
    byLabel(registers, 'reason', {
      name: 'assay_change_feed_reloads_total',
      help: 'Reloads of all state, by reason. commits_lost: the database lost committed changes.',
      read: sources.reloads,
    })
    gauges(registers, { ...sources, deadRows: () => this.deadRows })
    totals(registers, sources)
  }

  /** Counts a checked access token; `refusal` is undefined if it was accepted. */
  verified(refusal: string | undefined) {
    const outcome = refusal ?? 'ok'
    this.#verified.set(outcome, (this.#verified.get(outcome) ?? 0) + 1)
  }

  answered(method: string, route: string, status: number, seconds: number) {
    this.#requests.inc({ method, route, status })
    this.#seconds.observe({ route }, seconds)
  }

  /** Counts a request that could not be read. Its method and path are unknown, and it took no time. */
  refused(status: number) {
    this.#requests.inc({ method: 'none', route: 'unreadable', status })
  }

  /** Counts a 503 response. */
  unavailable(reason: UnavailableReason) {
    this.#unavailable.inc({ reason })
  }

  /** Counts a refresh by its outcome. */
  refreshed(outcome: RefreshOutcome) {
    this.#refreshed.inc({ outcome })
  }

  /** Counts a maintenance job that this replica ran or skipped. */
  maintained(task: string, outcome: JobOutcome, removed: number) {
    this.#jobs.inc({ task, outcome })
    this.#removed.inc({ task }, removed)
  }

  /** Records how long an act waited for its number on the change feed. */
  lockWaited(seconds: number) {
    this.#lockWait.observe(seconds)
  }

  text(): Promise<string> {
    return this.#worker ? this.#worker.allMetrics() : this.#registry.metrics()
  }

  /** This process's metrics only. */
  numbers(): Promise<MetricSnapshot> {
    return this.#registry.getMetricsAsJSON()
  }

  get contentType() {
    return this.#registry.contentType
  }
}

/**
 * Starts a series for each value at 0: an alert rule can't see growth in a series that starts with its first
 * event.
 */
function fromNothing<Label extends string>(
  registers: Registry[],
  label: Label,
  values: readonly string[],
  named: { name: string; help: string },
): Counter<Label> {
  const counter = new Counter({ ...named, labelNames: [label], registers })
  for (const value of values) counter.inc({ [label]: value } as Record<Label, string>, 0)
  return counter
}

const lockWait = (registers: Registry[]) =>
  new Histogram({
    name: 'assay_change_feed_lock_wait_seconds',
    help: "How long operations waited for the lock on the change feed's counter, by the database's clock. Operations that never got the lock are not included.",
    buckets: [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5],
    registers,
  })

function byLabel(
  registers: Registry[],
  label: 'outcome' | 'reason',
  { read, ...named }: { name: string; help: string; read: () => ReadonlyMap<string, number> },
) {
  new Counter({
    ...named,
    labelNames: [label],
    registers,
    collect() {
      this.reset()
      for (const [value, count] of read()) this.inc({ [label]: value }, count)
    },
  })
}

/**
 * Adds Node's metrics. Each worker's have their own label, because a sum would hide one that stalls or leaks.
 */
export function ofProcess(register: Registry, worker: string | undefined) {
  collectDefaultMetrics({ register, ...(worker !== undefined && { labels: { worker } }) })
}

/** `aggregator` is how the values of several workers are combined. */
function gauges(registers: Registry[], sources: MetricSources & { deadRows(): number }) {
  const gauge = (name: string, help: string, aggregator: 'sum' | 'max', read: () => number) =>
    new Gauge({
      name,
      help,
      aggregator,
      registers,
      collect() {
        this.set(read())
      },
    })
  gauge(
    'assay_change_feed_age_seconds',
    'Age of the state: time since the last successful poll was sent.',
    'max',
    sources.busAge,
  )
  gauge(
    'assay_answer_age_max_seconds',
    'The greatest age of the state that a response was ever based on.',
    'max',
    sources.maxAnswerAge,
  )
  // Each worker knows all revocations, so a sum would count each of them once per worker.
  gauge('assay_revocations', 'Live revocations in memory.', 'max', sources.revocations)
  // Each worker has its own cache, and a customer may be in several: the sum shows the memory used.
  gauge('assay_customers_cached', 'Customer records in memory.', 'sum', sources.customers)
  gauge('assay_tokens_cached', 'Access tokens in the token cache.', 'sum', () => sources.tokenCache().tokens)
  gauge(
    'assay_token_cache_bytes',
    'Memory that the token cache takes, at most.',
    'sum',
    () => sources.tokenCache().bytes,
  )
  gauge(
    'assay_audit_order_lag_seconds',
    'Time since all committed audit events were last known to have positions.',
    'max',
    sources.auditLag,
  )
  gauge('assay_clock_held', "1 while deletion is on hold because the database's clock jumped.", 'max', () =>
    Number(sources.clockHeld()),
  )
  gauge('assay_body_bytes', 'Bytes of request bodies in memory.', 'sum', sources.bodyBytes)
  gauge(
    'assay_database_dead_rows',
    'Dead rows of the change feed and the replicas in Postgres, from the replica that runs maintenance, once a minute. Others report 0.',
    'max',
    sources.deadRows,
  )
  gauge(
    'assay_database_calls',
    'Database calls in progress or waiting for a connection.',
    'sum',
    () => sources.database().calls,
  )
  gauge(
    'assay_database_connections',
    'Maximum number of connections for database calls. The poll and notifications have their own.',
    'sum',
    () => sources.database().connections,
  )
}

/** Makes counters whose totals are read at each scrape. */
export const counterIn = (registers: Registry[]) => (name: string, help: string, read: () => number) =>
  new Counter({
    name,
    help,
    registers,
    collect() {
      this.reset()
      this.inc(read())
    },
  })

function totals(registers: Registry[], sources: MetricSources) {
  const total = counterIn(registers)
  total('assay_change_feed_polls_total', 'Polls of the change feed sent.', () => sources.changeFeed().polls)
  total('assay_change_feed_poll_failures_total', 'Polls that failed.', () => sources.changeFeed().failures)
  total('assay_change_feed_rows_total', 'Changes received by polls.', () => sources.changeFeed().rows)
  total('assay_redis_failures_total', 'Redis calls that failed.', sources.redisFailures)
  total(
    'assay_log_lines_dropped_total',
    'Log lines that were dropped because standard output did not accept them.',
    sources.droppedLogLines,
  )
}
