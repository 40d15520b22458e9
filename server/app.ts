import { Hono } from 'hono'
import { RegExpRouter } from 'hono/router/reg-exp-router'
import {
  loadCustomer,
  requireAccount,
  requireAccountOrSessionsKey,
  requireOperatorOrService,
} from './http/auth.ts'
import type { AppEnv, Services } from './http/env.ts'
import { writeError } from './http/errors.ts'
import { observe } from './http/observe.ts'
import { noQuery } from './http/params.ts'
import { getPath } from './http/target.ts'
import type { Tracing } from './lib/tracing.ts'
import { account } from './routes/account.ts'
import { adminAudit } from './routes/admin/audit.ts'
import { clock } from './routes/admin/clock.ts'
import { customers } from './routes/admin/customers.ts'
import { customerTokens } from './routes/admin/one-time-tokens.ts'
import { policies } from './routes/admin/policies.ts'
import { replicas } from './routes/admin/replicas.ts'
import { adminRevoke } from './routes/admin/revoke.ts'
import { services as adminServices } from './routes/admin/services.ts'
import { apiKeys } from './routes/api-keys.ts'
import { audit } from './routes/audit.ts'
import { customerIssuers } from './routes/customer-issuers.ts'
import { discovery } from './routes/discovery.ts'
import { docs } from './routes/docs.ts'
import { adminExplain, explain } from './routes/explain.ts'
import { health } from './routes/health.ts'
import { introspect } from './routes/introspect.ts'
import { issue } from './routes/issue.ts'
import { oneTimeTokens } from './routes/one-time-tokens.ts'
import { refresh } from './routes/refresh.ts'
import { revoke } from './routes/revoke.ts'
import { revokeCustomer, sessions, subjects } from './routes/sessions.ts'
import { signingKeys } from './routes/signing-keys.ts'
import { exportSubject } from './routes/subject-export.ts'
import { token } from './routes/token.ts'
import { verify } from './routes/verify.ts'

export type App = ReturnType<typeof createApp>

/** /verify and every path below it; no two of these match one path, see `createApp`. */
const VERIFY_PATHS = ['/verify', '/verify/', '/verify/:path{.+}']

/** The paths of all other routes. A path outside these has no route. */
const OBSERVED_PATHS = [
  '/api/*',
  '/admin/*',
  '/issue',
  '/token',
  '/refresh',
  '/introspect/*',
  '/revoke',
  '/.well-known/*',
  '/customers/*',
  '/healthz',
  '/readyz',
  '/metrics',
  '/openapi.yaml',
  '/docs/*',
]

const CUSTOMER = '/admin/customers/:customer'

/**
 * Every route. /verify is called for each request to a backend, so its handler must be the only match of its path: with a second
 * match, or with `use('*')`, Hono returns a promise.
 */
export function createApp(services: Services, tracing?: Tracing) {
  const app = new Hono<AppEnv>({ getPath, router: new RegExpRouter() })
  const allowedMethods = (path: string) => METHODS.filter(method => hasRoute(app, method, path))
  const observed = observe({ services, tracing, allowedMethods })

  app.on('ALL', VERIFY_PATHS, verify(services, tracing))
  app.on('ALL', OBSERVED_PATHS, observed)

  app.route('/issue', issue).route('/token', token).route('/refresh', refresh).route('/revoke', revoke)
  app.route('/introspect', introspect).route('/introspect/explain', explain)
  app
    .route('/.well-known', discovery)
    .route('/customers', customerIssuers)
    .route('/', health(services))
    .route('/', docs)
  app.route('/api/auth', account).route('/api/auth', oneTimeTokens).route('/api/auth/refresh', refresh)

  // Registered before the middleware of sessions and subjects, which also accepts API keys.
  app.delete('/api/sessions', requireAccount, revokeCustomer)
  app.post('/api/subjects/export', requireAccount, noQuery, exportSubject)
  app.use('/api/keys/*', requireAccount).route('/api/keys', apiKeys)
  app.use('/api/secrets/*', requireAccount).route('/api/secrets', signingKeys)
  app.use('/api/audit', requireAccount).route('/api/audit', audit)
  app.use('/api/sessions/*', requireAccountOrSessionsKey).route('/api/sessions', sessions)
  app.use('/api/subjects/*', requireAccountOrSessionsKey).route('/api/subjects', subjects)

  app.use('/admin/*', requireOperatorOrService)
  app.route('/admin/customers', customers).route('/admin/customers', policies)
  app.route('/admin/customers', customerTokens)
  app.route('/admin/audit', adminAudit).route('/admin/replicas', replicas)
  app.route('/admin/services', adminServices).route('/admin/clock', clock)
  app.route('/admin/revoke', adminRevoke).route('/admin/explain', adminExplain)

  app.post(`${CUSTOMER}/revoke`, loadCustomer, revokeCustomer)
  app.post(`${CUSTOMER}/subjects/export`, loadCustomer, noQuery, exportSubject)
  app.use(`${CUSTOMER}/keys/*`, loadCustomer).route(`${CUSTOMER}/keys`, apiKeys)
  app.use(`${CUSTOMER}/secrets/*`, loadCustomer).route(`${CUSTOMER}/secrets`, signingKeys)
  app.use(`${CUSTOMER}/audit`, loadCustomer).route(`${CUSTOMER}/audit`, audit)
  app.use(`${CUSTOMER}/sessions/*`, loadCustomer).route(`${CUSTOMER}/sessions`, sessions)
  app.use(`${CUSTOMER}/subjects/*`, loadCustomer).route(`${CUSTOMER}/subjects`, subjects)

  app.onError(writeError)
  app.notFound(async c => {
    await observed(c, async () => {})
    return c.res
  })
  return app
}

const METHODS = ['GET', 'POST', 'PUT', 'PATCH', 'DELETE']

/** Middleware is registered for all methods, a route for one. */
const hasRoute = (app: Hono<AppEnv>, method: string, path: string) =>
  app.router.match(method, path)[0].some(([[, route]]) => route.method === method)
