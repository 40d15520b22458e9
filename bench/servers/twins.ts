import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { getRequestListener } from '@hono/node-server'
import { Hono } from 'hono'

/**
 * The limits: the same HTTP stack with nothing behind it. /verify answers with the same headers as Assay's, /introspect reads
 * the same form and answers the same JSON; neither looks at the token.
 */

const identity = {
  'X-Auth-Customer': 'abcdefghijklmnop',
  'X-Auth-Subject': 'user-abcdefghijklmnop',
  'X-Auth-Scope': 'read write',
  'X-Auth-Audience': 'http://assay.bench',
  'X-Auth-Session': 'abcdefghijklmnopqrstuvwx',
  'X-Auth-Token-Id': 'abcdefghijklmnopqrstuvwx',
  'X-Auth-Expires': '1800000000',
  'X-Auth-Claims': '',
  'X-Assay-Age': '250',
  'X-Request-Id': '00000000-0000-4000-8000-000000000000',
  'Content-Length': '0',
}

const active = {
  active: true,
  iss: 'http://assay.bench',
  sub: 'user-abcdefghijklmnop',
  aud: 'http://assay.bench',
  client_id: 'abcdefghijklmnop',
  exp: 1_800_000_000,
  iat: 1_700_000_000,
  jti: 'abcdefghijklmnopqrstuvwx',
  sid: 'abcdefghijklmnopqrstuvwx',
  scope: 'read write',
  scopes: ['read', 'write'],
  token_type: 'Bearer',
}

const headers = {
  'Cache-Control': 'no-store',
  'X-Assay-Age': '250',
  'X-Request-Id': identity['X-Request-Id'],
}

const app = new Hono()
  .all('/verify', c =>
    c.req.header('authorization') === undefined
      ? new Response(null, { status: 401 })
      : new Response(null, { status: 200, headers: identity }),
  )
  .post('/introspect', async c => {
    const form = new URLSearchParams(await c.req.text())
    if (form.get('token') === null || c.req.header('authorization') === undefined) return c.json({}, 400)
    return c.json(active, 200, headers)
  })

const server = createServer(getRequestListener(app.fetch, { hostname: '127.0.0.1' })).listen(
  0,
  '127.0.0.1',
  () => {
    process.stdout.write(`${JSON.stringify({ port: (server.address() as AddressInfo).port })}\n`)
  },
)
