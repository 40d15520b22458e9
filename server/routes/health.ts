import { Hono } from 'hono'
import { requireOperator } from '../http/auth.ts'
import type { AppEnv, Services } from '../http/env.ts'
import { noQuery } from '../http/params.ts'
import { bytes, json } from '../http/respond.ts'
import type { Clock } from '../lib/clock.ts'
import { Unavailable } from '../lib/errors.ts'

/** Health checks and metrics. /metrics requires an operator because it shows how much is refused, and why. */
export function health(services: Pick<Services, 'changeFeed' | 'clock' | 'metrics' | 'process'>) {
  const readiness = readinessChecks(services)
  return new Hono<AppEnv>()
    .get('/healthz', noQuery, c => json(c, { status: 'ok' }))
    .get('/readyz', noQuery, c => {
      const checks = readiness()
      if (Object.values(checks).every(check => check === 'ok')) return json(c, { status: 'ok', checks })
      services.metrics.unavailable('not_ready')
      return json(c, { status: 'unavailable', checks }, 503, { 'Retry-After': '1' })
    })
    .get('/metrics', requireOperator, noQuery, async c => {
      const { metrics } = services
      return bytes(c, await metrics.text(), 200, { 'Content-Type': metrics.contentType })
    })
}

/**
 * The server is ready if no drain has begun, the state is known, and the database has this version's migrations. Nothing here
 * waits for the database, so a balancer learns at once when /verify becomes 503 and when it works again.
 */
function readinessChecks({ changeFeed, clock, process }: Parameters<typeof health>[0]) {
  const isMigrated = checkInBackground(MIGRATIONS_INTERVAL_MS, clock, () => process.migrated())
  return () => {
    const known = changeFeed.hasLease()
    return {
      accepting: word(!process.draining()),
      state: word(known),
      database: word(known || changeFeed.reachesDatabase),
      migrations: known ? word(isMigrated()) : 'unknown',
    }
  }
}

/** The migrations are checked at most this often (ms). */
const MIGRATIONS_INTERVAL_MS = 1_000

/**
 * Returns a function that answers with the latest result of `check`, and starts it again, one at a time, after
 * `milliseconds`. It is true at first, because a start refuses a database that isn't up to date.
 */
function checkInBackground(milliseconds: number, clock: Clock, check: () => Promise<boolean>) {
  let latest = true
  let nextAt = Number.NEGATIVE_INFINITY
  async function run() {
    nextAt = Number.POSITIVE_INFINITY
    latest = await check().catch(error => falseUnlessUnavailable(error, latest))
    nextAt = clock.monotonic() + milliseconds
  }
  return () => {
    if (clock.monotonic() >= nextAt) void run()
    return latest
  }
}

/**
 * Without an answer of the database the latest result stays. If it refuses the query, it doesn't even have the table of
 * migrations.
 */
const falseUnlessUnavailable = (error: unknown, latest: boolean) => error instanceof Unavailable && latest

const word = (holds: boolean) => (holds ? 'ok' : 'failed')
