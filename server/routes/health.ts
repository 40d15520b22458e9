import type { Call, Routes } from '../http/call.ts'
import type { Services } from '../http/env.ts'
import { json, respond } from '../http/respond.ts'
import type { Clock } from '../lib/clock.ts'
import { Unavailable } from '../lib/errors.ts'
import { operator } from './admin/operator.ts'

type Needs = Pick<Services, 'changeFeed' | 'clock' | 'metrics' | 'operators' | 'process'>

/** For whoever runs it. */
export function opsRoutes(services: Needs): Routes {
  return {
    'GET /healthz': () => json({ status: 'ok' }),
    'GET /readyz': readyz(services),
    'GET /metrics': metrics(services),
  }
}

/** Ready: the state is known, the database answers and has this version's migrations, and no drain has begun. */
function readyz({ changeFeed, clock, metrics, process }: Needs) {
  const migratedLately = throttled(1_000, clock, () => process.migrated().catch(unlessUnavailable))
  return async function readyz() {
    const migrated = await migratedLately()
    const checks = {
      accepting: word(!process.draining()),
      state: word(changeFeed.hasLease()),
      database: word(migrated !== undefined),
      migrations: migrated === undefined ? 'unknown' : word(migrated),
    }
    const ready = Object.values(checks).every(check => check === 'ok')
    if (ready) return json({ status: 'ok', checks })
    metrics.unavailable('not_ready')
    return json({ status: 'unavailable', checks }, 503, { 'Retry-After': '1' })
  }
}

/** A database that refuses the question was reached: it has not so much as the table of the migrations. */
const unlessUnavailable = (error: unknown) => (error instanceof Unavailable ? undefined : false)

/** Who asks meanwhile, or within `milliseconds` after, has the same answer: a flood of questions is one query. */
function throttled<Answer>(milliseconds: number, clock: Clock, ask: () => Promise<Answer>) {
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

/** Only for operators: how much is refused, and why, is for nobody else. */
function metrics(services: Needs) {
  return async function metricsText(call: Call) {
    operator(call, services)
    const { metrics } = services
    return respond(await metrics.text(), 200, { 'Content-Type': metrics.contentType })
  }
}
