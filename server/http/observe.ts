import type { Context, MiddlewareHandler, Next } from 'hono'
import type { Tracing } from '../lib/tracing.ts'
import type { AppEnv, Services } from './env.ts'
import { refuseUnrouted } from './errors.ts'
import { requestIdFrom } from './request-id.ts'
import { matchedRoute } from './route.ts'

/** Routes that machines call constantly. They are not logged, but /metrics counts them. */
export const UNLOGGED_ROUTES = new Set([
  '/healthz',
  '/readyz',
  '/metrics',
  '/introspect',
  '/introspect/batch',
])

export interface ObserveOptions {
  services: Services
  tracing: Tracing | undefined
  /** The methods that have a route at this path. */
  allowedMethods(path: string): string[]
}

/**
 * The first middleware of every route but /verify: gives the request its id, counts and logs its answer. A request without a
 * route is refused here, before any authentication.
 */
export function observe({ services, tracing, allowedMethods }: ObserveOptions): MiddlewareHandler<AppEnv> {
  const { clock } = services
  return async function observe(c, next) {
    const startedAt = clock.monotonic()
    const body = services.bodyMemory.hold()
    c.set('services', services)
    c.set('body', body)
    c.set('requestId', requestIdFrom(c.req.header('x-request-id')))
    // The pattern, so that ids don't become metric labels.
    const route = matchedRoute(c)?.path
    try {
      if (route === undefined) c.res = refuseUnrouted(c, allowedMethods(c.req.path))
      else await (tracing ? traced(c, next, route, tracing) : next())
    } finally {
      body.release()
    }
    report(c, route ?? 'none', clock.monotonic() - startedAt)
  }
}

const traced = (c: Context<AppEnv>, next: Next, route: string, tracing: Tracing) =>
  tracing.follow(
    {
      method: c.req.method,
      route,
      headers: c.env?.incoming?.headers ?? {},
      quiet: UNLOGGED_ROUTES.has(route),
    },
    async () => {
      await next()
      return c.res
    },
  )

function report(c: Context<AppEnv>, route: string, milliseconds: number) {
  const { log, metrics } = c.get('services')
  const { method } = c.req
  const { status } = c.res
  metrics.answered(method, route, status, (milliseconds - (c.get('waitedMs') ?? 0)) / 1000)
  log[UNLOGGED_ROUTES.has(route) ? 'debug' : 'info'](
    { requestId: c.get('requestId'), method, route, status, ms: Math.round(milliseconds) },
    'answered',
  )
}
