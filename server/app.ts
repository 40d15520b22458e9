import type { IncomingMessage } from 'node:http'
import { Call, type Reply, targetOf } from './http/call.ts'
import type { Services } from './http/env.ts'
import { noRoute, writeError } from './http/errors.ts'
import { type Found, Router } from './http/router.ts'
import { accountRoutes } from './routes/account.ts'
import { adminRoutes } from './routes/admin/admin.ts'
import { apiKeyRoutes } from './routes/api-keys.ts'
import { auditRoutes } from './routes/audit.ts'
import { discoveryRoutes } from './routes/discovery.ts'
import { referenceRoutes } from './routes/docs.ts'
import { explainingRoutes } from './routes/explain.ts'
import { opsRoutes } from './routes/health.ts'
import { introspectionRoutes } from './routes/introspect.ts'
import { revocationRoutes } from './routes/revoke.ts'
import { sessionRoutes } from './routes/sessions.ts'
import { secretRoutes } from './routes/signing-keys.ts'
import { tokenRoutes } from './routes/token.ts'
import { type Asked, rulesAskedBy, verifier } from './routes/verify.ts'

export interface App {
  /** At once where nothing has to be waited for. Never throws. */
  answer(incoming: IncomingMessage): Reply | Promise<Reply>
  /** By method and path, but for /verify. */
  routes: readonly string[]
  /** What is asked for. `quiet`: machines ask it all the time. */
  routeOf(incoming: IncomingMessage): { route: string; quiet: boolean } | undefined
}

/** Every route, behind one request id, one count and one writer of errors; /verify stands before them, by itself. */
export function createApp(services: Services): App {
  const verify = verifier(services)
  const router = new Router({
    ...accountRoutes(services),
    ...apiKeyRoutes(services),
    ...sessionRoutes(services),
    ...auditRoutes(services),
    ...secretRoutes(services),
    ...tokenRoutes(services),
    ...introspectionRoutes(services),
    ...revocationRoutes(services),
    ...discoveryRoutes(services),
    ...opsRoutes(services),
    ...adminRoutes(services),
    ...explainingRoutes(services),
    ...referenceRoutes(),
  })

  async function observed(call: Call): Promise<Reply> {
    const began = services.clock.monotonic()
    const found = router.find(call.method, call.path)
    const reply = found ? await answered(services, call, found) : noRoute(call, router.methodsOf(call.path))
    reply.headers['X-Request-Id'] = call.requestId
    tell(services, call, found?.route ?? 'none', reply.status, services.clock.monotonic() - began)
    return reply
  }

  return {
    answer(incoming) {
      const target = targetOf(incoming.url)
      const rules = rulesAskedBy(target)
      return rules === undefined
        ? observed(new Call(incoming, target))
        : verify(rules, incoming.headers as Asked)
    },
    routes: router.routes,
    routeOf({ url, method = '' }) {
      const target = targetOf(url)
      const route = rulesAskedBy(target) === undefined ? router.find(method, target.path)?.route : '/verify'
      return route === undefined ? undefined : { route, quiet: UNLOGGED_ROUTES.has(route) }
    },
  }
}

async function answered(services: Services, call: Call, { handler, params }: Found): Promise<Reply> {
  call.params = params
  try {
    return await handler(call)
  } catch (error) {
    return writeError(services, call, error)
  }
}

/** What is asked all the time by machines is not worth a line: /metrics counts it. */
const UNLOGGED_ROUTES = new Set(['/healthz', '/readyz', '/metrics', '/introspect', '/introspect/batch'])

function tell(
  { log, metrics }: Pick<Services, 'log' | 'metrics'>,
  { method, requestId }: Call,
  route: string,
  status: number,
  milliseconds: number,
) {
  metrics.answered(method, route, status, milliseconds / 1000)
  log[UNLOGGED_ROUTES.has(route) ? 'debug' : 'info'](
    { requestId, method, route, status, ms: Math.round(milliseconds) },
    'answered',
  )
}
