/** Series by name and labels, with samples in promtool's notation, fifteen seconds apart. */
export type Series = Record<string, string>

/** 75 minutes of a healthy replica. */
export const WELL: Series = {
  up: '1x300',
  assay_change_feed_age_seconds: '0.3x300',
  assay_change_feed_polls_total: '0+30x300',
  assay_change_feed_poll_failures_total: '0x300',
  'assay_change_feed_reloads_total{reason="commits_lost"}': '0x300',
  'assay_change_feed_reloads_total{reason="timeline"}': '0x300',
  assay_clock_held: '0x300',
  'assay_change_feed_lock_wait_seconds_bucket{le="0.001"}': '0+10x300',
  'assay_change_feed_lock_wait_seconds_bucket{le="0.5"}': '0+10x300',
  'assay_change_feed_lock_wait_seconds_bucket{le="+Inf"}': '0+10x300',
  'assay_requests_total{route="/issue",status="200"}': '0+150x300',
  'assay_request_seconds_bucket{route="/issue",le="0.01"}': '0+150x300',
  'assay_request_seconds_bucket{route="/issue",le="2.5"}': '0+150x300',
  'assay_request_seconds_bucket{route="/issue",le="+Inf"}': '0+150x300',
  'assay_unavailable_total{reason="change_feed"}': '0x300',
  'assay_unavailable_total{reason="broken_record"}': '0x300',
  'assay_unavailable_total{reason="not_ready"}': '0x300',
  'assay_unavailable_total{reason="signatures"}': '0x300',
  'assay_verified_total{outcome="ok"}': '0+1500x300',
  'assay_verified_total{outcome="expired"}': '0+75x300',
  'assay_verified_total{outcome="token_missing"}': '0+1500x300',
  'assay_verified_total{outcome="rule_malformed"}': '0x300',
  'assay_verified_total{outcome="server_error"}': '0x300',
  'assay_verified_total{outcome="key_not_in_use"}': '0x300',
  'assay_refreshed_total{outcome="rotate"}': '0+50x300',
  'assay_refreshed_total{outcome="reuse"}': '0x300',
  'assay_record_cache_total{outcome="used"}': '0+10x300',
  'assay_record_cache_total{outcome="forged"}': '0x300',
  assay_redis_failures_total: '0x300',
  assay_audit_order_lag_seconds: '0.6x300',
  // Between two rounds of autovacuum.
  assay_database_dead_rows: '0 30000 30000 30000 '.repeat(75).trim(),
  assay_database_calls: '2x300',
  assay_database_connections: '10x300',
  assay_worker_losses_total: '0x300',
  assay_worker_silences_total: '0x300',
  // With full caches.
  process_resident_memory_bytes: '7e8x300',
  'assay_maintenance_jobs_total{task="sessions",outcome="ok"}': '0+1x300',
  'assay_maintenance_jobs_total{task="sessions",outcome="skipped"}': '0+1x300',
  'assay_maintenance_jobs_total{task="clock",outcome="ok"}': '0+4x300',
}

export interface Trial {
  /** Series of replica `a` from the tenth minute on. */
  what: Series
  /** Also applies to replica `b`. */
  everywhere?: true
  /** When the alert is evaluated, in minutes. */
  at: number
  summary: string
  labels?: Record<string, string>
}

const ONCE = '0x40 1x260'

export const TRIALS: Record<string, Trial> = {
  AssayDown: {
    what: { up: '1x40 0x260' },
    at: 12,
    summary: 'a does not answer Prometheus',
    labels: { job: 'assay', instance: 'a' },
  },
  AssayBusStale: {
    what: { assay_change_feed_age_seconds: '0.3x40 4.5x260' },
    at: 12,
    summary: 'a last heard from the database 4.5s ago',
    labels: { instance: 'a' },
  },
  AssayUnavailable: {
    what: { 'assay_unavailable_total{reason="change_feed"}': '0x40 0+150x260' },
    at: 30,
    summary: '2.326% of all responses are 503',
  },
  AssayBrokenRecord: {
    what: { 'assay_unavailable_total{reason="broken_record"}': ONCE },
    at: 12,
    summary: "A customer's secrets can't be decrypted: requests about its tokens get 503",
  },
  AssayCommitsLost: {
    what: { 'assay_change_feed_reloads_total{reason="commits_lost"}': ONCE },
    at: 12,
    summary: 'The database lost committed changes: tokens and sessions that were revoked may be valid again',
  },
  AssayPrimaryChanges: {
    what: { 'assay_change_feed_reloads_total{reason="timeline"}': '0x40 1 2 3 4x257' },
    at: 12,
    summary: 'a keeps detecting another primary or a restart: there may be two primaries',
    labels: { instance: 'a' },
  },
  AssayBusReloaded: {
    what: { 'assay_change_feed_reloads_total{reason="timeline"}': ONCE },
    at: 12,
    summary: 'Replicas reloaded all state (timeline): a failover, or something that looks like one',
    labels: { reason: 'timeline' },
  },
  AssayClockJumped: {
    what: { assay_clock_held: ONCE },
    at: 12,
    summary:
      "The database's clock jumped: tokens may expire early or late; nothing is deleted for 24 hours or until the clock is confirmed",
  },
  AssayRecordForged: {
    what: { 'assay_record_cache_total{outcome="forged"}': ONCE },
    at: 12,
    summary:
      'Redis held a record that Assay did not write: somebody else writes to Redis, or its content is damaged',
  },
  AssayKeyMisused: {
    what: { 'assay_verified_total{outcome="key_not_in_use"}': ONCE },
    at: 11,
    summary: "A token has a valid signature, but Assay did not sign it: a customer's secret may have leaked",
  },
  AssayServerErrors: {
    what: { 'assay_requests_total{route="/issue",status="500"}': '_x40 1x260' },
    at: 12,
    summary: 'Responses are 500: this is a bug; find it in the log by the request id',
  },
  AssayPollsFail: {
    what: { assay_change_feed_poll_failures_total: '0x40 0+3x260' },
    at: 30,
    summary: '10% of the polls of a fail',
    labels: { instance: 'a' },
  },
  AssayRevocationsSlow: {
    what: { 'assay_change_feed_lock_wait_seconds_bucket{le="0.001"}': '0+10x40 400x260' },
    at: 30,
    summary: 'Revocations wait 490ms for each other',
  },
  AssayDeadRows: {
    what: { assay_database_dead_rows: '0x40 30000x260' },
    at: 30,
    summary: 'Postgres keeps 30k dead rows: find the oldest open transaction with `assay doctor --offline`',
  },
  AssayDatabaseBusy: {
    what: { assay_database_calls: '2x40 30x260' },
    at: 15,
    summary: 'a uses nearly all of its connections to the database',
    labels: { instance: 'a' },
  },
  AssaySlow: {
    what: { 'assay_request_seconds_bucket{route="/issue",le="0.01"}': '0+150x40 6000x260' },
    at: 30,
    summary: 'One in a hundred requests for /issue takes longer than 2.45s',
    labels: { route: '/issue' },
  },
  AssayManyRefused: {
    what: { 'assay_verified_total{outcome="key_unknown"}': '0x40 0+1500x260' },
    at: 60,
    summary: '35.48% of all tokens are refused',
  },
  AssaySignaturesWait: {
    what: { 'assay_unavailable_total{reason="signatures"}': '0x40 0+75x260' },
    at: 20,
    summary: 'New tokens get 503 because too many asymmetric signatures are waiting to be verified',
  },
  AssayReuseFound: {
    what: { 'assay_refreshed_total{outcome="reuse"}': ONCE },
    at: 12,
    summary:
      'A refresh token was used again after its successor: it was stolen, or a device was restored from a backup',
  },
  AssayRuleMalformed: {
    what: { 'assay_verified_total{outcome="rule_malformed"}': ONCE },
    at: 12,
    summary: 'A gateway sends an invalid verify rule, so all of its requests with that rule are denied',
  },
  AssayTooManyTries: {
    what: { 'assay_requests_total{route="/api/auth/login",status="429"}': '0x40 0+30x260' },
    at: 30,
    summary: '/api/auth/login refuses 2 attempts per second: somebody is guessing, or a limit is too low',
    labels: { route: '/api/auth/login' },
  },
  AssayRedisFails: {
    what: { assay_redis_failures_total: '0x40 0+30x260' },
    at: 30,
    summary: "a can't use Redis: it counts limits on its own and reads records from the database",
    labels: { instance: 'a' },
  },
  AssayWorkersDie: {
    what: { assay_worker_losses_total: ONCE },
    at: 12,
    summary: 'A worker of a died, or did not answer the first process',
    labels: { instance: 'a' },
  },
  AssayMemoryHigh: {
    what: { process_resident_memory_bytes: '2.7e8x40 1.5e9x260' },
    at: 27,
    summary: 'A process of a uses 1.397GiB of memory',
    labels: { instance: 'a' },
  },
  AssayMaintenanceFails: {
    what: { 'assay_maintenance_jobs_total{task="sessions",outcome="failed"}': '_x40 1+4x260' },
    at: 70,
    summary: 'Maintenance fails on a: expired rows are not deleted and old keys are not rotated',
    labels: { instance: 'a' },
  },
  AssayMaintenanceIdle: {
    what: { 'assay_maintenance_jobs_total{task="sessions",outcome="ok"}': '0+1x40 40x260' },
    everywhere: true,
    at: 73,
    summary:
      'No replica runs maintenance, because each leaves it to another: expired rows are not deleted and old keys are not rotated',
  },
  AssayAuditOrderStalls: {
    what: { assay_audit_order_lag_seconds: '0.6x40 15+15x260' },
    everywhere: true,
    at: 17,
    summary: 'Audit events get no positions, so audit exports and feeds get no new events',
  },
}
