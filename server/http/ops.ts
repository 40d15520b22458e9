import { readFileSync } from 'node:fs'
import { Hono } from 'hono'
import { digest, matches } from '../crypto/secret.ts'
import { OAuthError } from '../errors.ts'
import { bearerOf } from './caller.ts'
import type { Ctx, Deps, Env } from './context.ts'

type Needs = Pick<Deps, 'bus' | 'config' | 'metrics' | 'process'>

const document = readFileSync(`${import.meta.dirname}/../../openapi.yaml`, 'utf8')

/** For whoever runs it. */
export function opsRoutes(deps: Needs) {
  return new Hono<Env>()
    .get('/healthz', c => c.json({ status: 'ok' }))
    .get('/readyz', readyz(deps))
    .get('/metrics', metrics(deps))
    .get('/openapi.yaml', c => c.body(document, 200, { 'Content-Type': 'application/yaml' }))
}

/** Ready: the state is known, the database answers and has this version's migrations, and no drain has begun. */
function readyz({ bus, process }: Needs) {
  return async function readyz(c: Ctx) {
    const migrated = await process.migrated().catch(() => undefined)
    const checks = {
      state: word(bus.usable() && !process.draining()),
      database: word(migrated !== undefined),
      migrations: word(migrated === true),
    }
    const ready = Object.values(checks).every(check => check === 'ok')
    if (ready) return c.json({ status: 'ok', checks })
    return c.json({ status: 'unavailable', checks }, 503, { 'Retry-After': '1' })
  }
}

const word = (holds: boolean) => (holds ? 'ok' : 'failed')

/** Only with the operator token: how much is refused, and why, is for nobody else. */
function metrics({ config, metrics }: Needs) {
  const operator = digest(config.adminToken ?? '')
  return async function metricsText(c: Ctx) {
    const token = bearerOf(c.req.header('authorization'))
    if (config.adminToken === undefined || token === undefined || !matches(operator, token))
      throw new OAuthError('invalid_client', 'send the operator token: Authorization: Bearer ...')
    return c.body(await metrics.text(), 200, { 'Content-Type': metrics.contentType })
  }
}
