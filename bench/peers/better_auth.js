/**
 * Better Auth as its documentation mounts it on Hono, here on the same HTTP stack as Assay. It uses the cookie cache that its
 * performance guide recommends, in the encoding documented as fastest (`compact`): a session is checked by its signed cookies,
 * without a query to a store. The store is its in-memory adapter. The base URL is fixed, because it would otherwise be derived
 * for each request.
 *
 * `session` calls its own endpoint. `session_by_api` calls a route that uses `auth.api.getSession`, the documented way to check
 * a session in an application's server, which avoids the endpoint's routing.
 */
import './production.js'

import { randomBytes } from 'node:crypto'
import { getRequestListener } from '@hono/node-server'
import { betterAuth } from 'better-auth'
import { memoryAdapter } from 'better-auth/adapters/memory'
import { Hono } from 'hono'
import { announce, DAY, listen, TOKENS } from './peer.js'

const auth = betterAuth({
  baseURL: 'http://localhost:3000',
  secret: randomBytes(32).toString('base64'),
  database: memoryAdapter({ user: [], session: [], account: [], verification: [] }),
  // No password is checked under load; scrypt would only make the start slow.
  emailAndPassword: {
    enabled: true,
    password: { hash: async password => password, verify: async ({ hash, password }) => hash === password },
  },
  session: { cookieCache: { enabled: true, strategy: 'compact', maxAge: DAY } },
  rateLimit: { enabled: false },
  logger: { disabled: true },
  telemetry: { enabled: false },
})

const app = new Hono()
app.all('/api/auth/*', c => auth.handler(c.req.raw))
app.get('/api/me', async c => c.json(await auth.api.getSession({ headers: c.req.raw.headers })))

/** The cookies of a new user's session, as a browser would send them. */
async function cookiesOf(email) {
  const body = { email, name: 'A user', password: randomBytes(16).toString('base64') }
  const { headers } = await auth.api.signUpEmail({ body, returnHeaders: true })
  return headers
    .getSetCookie()
    .map(cookie => cookie.split(';', 1)[0])
    .join('; ')
}

const cookies = await Promise.all(
  Array.from({ length: TOKENS }, (_, i) => cookiesOf(`user-${i}@customer.example`)),
)
const planFor = path => ({
  requests: cookies.map(Cookie => ({ method: 'GET', path, headers: { Cookie } })),
  status: 200,
  contains: '@customer.example"',
})

announce(await listen(getRequestListener(app.fetch)), {
  session: planFor('/api/auth/get-session'),
  session_by_api: planFor('/api/me'),
})
