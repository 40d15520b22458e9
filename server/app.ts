import { Hono } from 'hono'
import { routePath } from 'hono/route'
import { accountRoutes } from './http/account.ts'
import { apiKeyRoutes } from './http/api_keys.ts'
import { auditRoutes } from './http/audit.ts'
import { type Ctx, type Deps, type Env, requestIdFrom } from './http/context.ts'
import { discoveryRoutes } from './http/discovery.ts'
import { notFound, onError } from './http/errors.ts'
import { introspectionRoutes } from './http/introspection.ts'
import { opsRoutes } from './http/ops.ts'
import { revocationRoutes } from './http/revocation.ts'
import { secretRoutes } from './http/secrets.ts'
import { sessionRoutes } from './http/sessions.ts'
import { tokenRoutes } from './http/token.ts'
import { type Verify, verifyRoutes } from './http/verify.ts'

export type App = Hono<Env>

/** Every route, behind one request id, one count and one error handler; /verify stands before them, by itself. */
export function createApp(deps: Deps, verify: Verify): App {
  const app = new Hono<Env>()
  app.route('/', verifyRoutes(verify))
  app.use(observe(deps))
  for (const routes of [
    accountRoutes(deps),
    apiKeyRoutes(deps),
    sessionRoutes(deps),
    auditRoutes(deps),
    secretRoutes(deps),
    tokenRoutes(deps),
    introspectionRoutes(deps),
    revocationRoutes(deps),
    discoveryRoutes(deps),
    opsRoutes(deps),
  ])
    app.route('/', routes)
  app.onError(onError(deps))
  app.notFound(notFound(path => methodsOf(app, path)))
  return app
}

/** What is asked every few seconds by machines is not worth a line. */
const QUIET = new Set(['/healthz', '/readyz', '/metrics'])

function observe({ clock, log, metrics }: Pick<Deps, 'clock' | 'log' | 'metrics'>) {
  return async function observe(c: Ctx, next: () => Promise<void>) {
    const requestId = requestIdFrom(c.req.header('x-request-id'))
    c.set('requestId', requestId)
    const began = clock.monotonic()
    await next()
    const milliseconds = clock.monotonic() - began
    const { method } = c.req
    const { status } = c.res
    const route = routeOf(c)
    metrics.answered(method, route, status, milliseconds / 1000)
    log[QUIET.has(route) ? 'debug' : 'info'](
      { requestId, method, route, status, ms: Math.round(milliseconds) },
      'answered',
    )
  }
}

/** The pattern that was matched, never the path: ids don't become labels. */
function routeOf(c: Ctx): string {
  const route = routePath(c, -1)
  return route === '/*' ? 'none' : route
}

/** From the router's own table, so that it can't drift from it. */
function methodsOf(app: App, path: string): string[] {
  const routes = app.routes.filter(route => route.method !== 'ALL' && matchesPath(route.path, path))
  return [...new Set(routes.map(route => route.method))]
}

function matchesPath(pattern: string, path: string): boolean {
  const parts = path.split('/')
  const expected = pattern.split('/')
  return (
    expected.length === parts.length &&
    expected.every((part, i) => (part.startsWith(':') ? parts[i] !== '' : part === parts[i]))
  )
}
