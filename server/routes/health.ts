import { Hono } from 'hono'
import { requireOperator } from '../http/auth.ts'
import type { AppEnv, Services } from '../http/env.ts'
import { noQuery } from '../http/params.ts'
import { bytes, json } from '../http/respond.ts'
import type { Clock } from '../lib/clock.ts'
import { Unavailable } from '../lib/errors.ts'

/** Health checks and metrics. /metrics requires an operator because it shows how much is refused, and why. */
export function health(services: Pick<Services, 'changeFeed' | 'clock' | 'metrics' | 'process'>) {
  const checks = readinessChecks(services)
  return new Hono<AppEnv>()
    .get('/healthz', noQuery, c => json(c, { status: 'ok' }))
    .get('/readyz', noQuery, async c => {
      const found = await checks()
      if (Object.values(found).every(check => check === 'ok')) return json(c, { status: 'ok', checks: found })
      services.metrics.unavailable('not_ready')
      return json(c, { status: 'unavailable', checks: found }, 503, { 'Retry-After': '1' })
    })
    .get('/metrics', requireOperator, noQuery, async c => {
      const { metrics } = services
      return bytes(c, await metrics.text(), 200, { 'Content-Type': metrics.contentType })
    })
}

/** Ready: the state is known, the database answers and has this version's migrations, and no drain has begun. */
function readinessChecks({ changeFeed, clock, process }: Parameters<typeof health>[0]) {
  const migratedLately = throttle(1_000, clock, () => process.migrated().catch(unlessUnavailable))
  return async () => {
    const migrated = await migratedLately()
    return {
      accepting: word(!process.draining()),
      state: word(changeFeed.hasLease()),
      database: word(migrated !== undefined),
      migrations: migrated === undefined ? 'unknown' : word(migrated),
    }
  }
}

/** A database that refuses the question was reached: it doesn't even have the table of migrations. */
const unlessUnavailable = (error: unknown) => (error instanceof Unavailable ? undefined : false)

/** Calls during one call, and within `milliseconds` after it, share its result: a flood of requests is one query. */
function throttle<Answer>(milliseconds: number, clock: Clock, ask: () => Promise<Answer>) {
  let answer: Promise<Answer> | undefined
  let until = Number.NEGATIVE_INFINITY
  return () => {
    if (answer && clock.monotonic() < until) return answer
    until = Number.POSITIVE_INFINITY
    answer = ask().finally(() => {
      until = clock.monotonic() + milliseconds
    })
    return answer
  }
}

const word = (holds: boolean) => (holds ? 'ok' : 'failed')
