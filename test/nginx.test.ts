import { once } from 'node:events'
import { createServer, type IncomingHttpHeaders } from 'node:http'
import type { AddressInfo } from 'node:net'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { findNginx, type Nginx, protect, startNginx } from './support/nginx.ts'
import { type Server, startServer } from './support/server.ts'

const IDENTITY = ['Customer', 'Subject', 'Scope', 'Audience', 'Session', 'Token-Id', 'Expires', 'Claims'].map(
  name => `X-Auth-${name}`,
)
const FORGED = Object.fromEntries(IDENTITY.map(name => [name, 'forged']))
const bearer = (token: string, more = {}) => ({ headers: { Authorization: `Bearer ${token}`, ...more } })

/** The application behind nginx: notes what reaches it. */
async function startBackend() {
  const heard: { path: string | undefined; headers: IncomingHttpHeaders }[] = []
  const server = createServer((request, response) => {
    heard.push({ path: request.url, headers: request.headers })
    if (request.url?.endsWith('/fail')) response.statusCode = 500
    request.resume().on('end', () => response.end('from the backend'))
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const stop = async () => {
    server.close()
    server.closeAllConnections()
  }
  return { heard, port: (server.address() as AddressInfo).port, stop }
}

describe.skipIf(!findNginx())(
  'behind a real nginx with the shipped files (skipped where it is not installed)',
  () => {
    let server: Server
    let backend: Awaited<ReturnType<typeof startBackend>>
    let nginx: Nginx
    let apiKey: string
    let customer: string

    beforeAll(async () => {
      server = await startServer({ MAX_STALENESS: '500ms' })
      backend = await startBackend()
      nginx = await startNginx({
        assayPort: server.port,
        backendPort: backend.port,
        locations: `
        location /with-token/ { ${protect('/_assay/verify')} proxy_set_header Authorization $http_authorization; }
        location /typo/ { ${protect('/_assay/verfy/scope=read')} }
        location /unknown-rule/ { ${protect('/_assay/verify/scpoe=read')} }
        location /repeated-rule/ { ${protect('/_assay/verify/scope=read&scope=read')} }
        location /before/ { ${protect('/_assay/verify')} return 500; }
        location /after/ { ${protect('/_assay/verify')} proxy_intercept_errors on; }`,
      })
      const response = await server.fetch(
        '/api/auth/signup',
        json({ email: 'a@example.com', password: 'correct horse' }),
      )
      const account = (await response.json()) as { api_key: string; customer: { id: string } }
      apiKey = account.api_key
      customer = account.customer.id
    })
    afterAll(async () => {
      await nginx?.stop()
      await backend?.stop()
      await server?.stop()
    })
    beforeEach(() => {
      backend.heard.length = 0
    })

    const json = (body: object, headers = {}) => ({
      method: 'POST',
      headers: { 'Content-Type': 'application/json', ...headers },
      body: JSON.stringify(body),
    })

    async function issue(wanted: object): Promise<string> {
      const response = await server.fetch('/issue', json(wanted, { Authorization: `Bearer ${apiKey}` }))
      expect(response.status).toBe(200)
      return ((await response.json()) as { access_token: string }).access_token
    }

    async function get(path: string, init: RequestInit = {}) {
      const response = await fetch(nginx.url + path, init)
      await response.arrayBuffer()
      return response
    }

    test('a valid token gets through, and the backend hears whose it is', async () => {
      const token = await issue({ subject: 'ann', scope: 'read', claims: { plan: 'gold' } })
      expect((await get('/orders/7?page=2', bearer(token))).status).toBe(200)
      const { path, headers } = backend.heard[0]!
      expect(path).toBe('/orders/7?page=2')
      expect(headers).toMatchObject({
        'x-auth-customer': customer,
        'x-auth-subject': 'ann',
        'x-auth-scope': 'read',
        'x-auth-claims': Buffer.from('{"plan":"gold"}').toString('base64url'),
        'x-request-id': expect.stringMatching(/^[0-9a-f]{32}$/),
      })
    })

    test('H41 CVE-2026-34457: no identity header of the client reaches the backend, not even where ours is empty', async () => {
      const token = await issue({ scope: 'read' })
      const underscored = Object.fromEntries(IDENTITY.map(name => [name.replaceAll('-', '_'), 'forged']))
      expect((await get('/', bearer(token, { ...FORGED, ...underscored }))).status).toBe(200)
      const { headers } = backend.heard[0]!
      expect(JSON.stringify(headers)).not.toContain('forged')
      expect(headers['x-auth-customer']).toBe(customer)
      // No session and no claims of its own: Assay says so with empty headers, and nginx leaves empty ones out.
      expect(headers).not.toHaveProperty('x-auth-session')
      expect(headers).not.toHaveProperty('x-auth-claims')
    })

    test('H41: nor does it where nothing is asked', async () => {
      expect((await get('/open/', { headers: FORGED })).status).toBe(200)
      expect(JSON.stringify(backend.heard[0]!.headers)).not.toContain('forged')
    })

    test('H40: the largest identity there can be fits into what nginx reads by default', async () => {
      const token = await issue({ scope: 'read', claims: { note: 'n'.repeat(1900) } })
      expect((await get('/', bearer(token))).status).toBe(200)
      expect(backend.heard[0]!.headers['x-auth-claims']).toHaveLength(Math.ceil((1900 + 11) * (4 / 3)))
    })

    test('H41: Assay hears the token, the request id and nothing else of the client', async () => {
      // A listener in Assay's place: what nginx sends is the question here, not what it is answered.
      const listener = await startBackend()
      const asking = await startNginx({ assayPort: listener.port, backendPort: backend.port })
      const headers = { ...FORGED, 'X-Assay-Require': 'scope=x', 'X-Forwarded-For': '1.2.3.4', Cookie: 'a=b' }
      const post = { method: 'POST', body: 'x'.repeat(100_000) }
      await (await fetch(`${asking.url}/reading/?aud=x`, { ...post, ...bearer('t', headers) })).arrayBuffer()
      await asking.stop()
      await listener.stop()
      expect(listener.heard).toEqual([
        {
          path: '/verify?scope=read',
          headers: { host: 'assay', authorization: 'Bearer t', 'x-request-id': expect.any(String) },
        },
      ])
    })

    test('the token ends at nginx, unless the location hands it on', async () => {
      const token = await issue({ scope: 'read' })
      await get('/', bearer(token))
      await get('/with-token/', bearer(token))
      expect(backend.heard.map(({ headers }) => headers.authorization)).toEqual([
        undefined,
        `Bearer ${token}`,
      ])
    })

    test('a body goes to the backend, whatever its length, and a denied one nowhere', async () => {
      const token = await issue({ scope: 'read' })
      const post = { method: 'POST', body: 'x'.repeat(100_000) }
      expect((await get('/', { ...post, ...bearer(token) })).status).toBe(200)
      expect(backend.heard[0]!.headers['content-length']).toBe('100000')
      expect((await get('/', { ...post, ...bearer('nonsense') })).status).toBe(401)
      expect(backend.heard).toHaveLength(1)
    })

    test('without a token, and with a bad one, it is 401 with the challenge', async () => {
      const without = await get('/')
      expect(without.status).toBe(401)
      expect(without.headers.get('www-authenticate')).toMatch(/^Bearer/)
      expect(without.headers.get('www-authenticate')).not.toContain('error=')
      const bad = await get('/', bearer('a.b.c'))
      expect(bad.status).toBe(401)
      expect(bad.headers.get('www-authenticate')).toContain('error="invalid_token"')
      expect(backend.heard).toEqual([])
    })

    test('a token that lacks the scope is 403 with the challenge, which names the scope', async () => {
      const token = await issue({ scope: 'read' })
      expect((await get('/reading/', bearer(token))).status).toBe(200)
      const response = await get('/writing/', bearer(token))
      expect(response.status).toBe(403)
      expect(response.headers.get('www-authenticate')).toContain('error="insufficient_scope"')
      expect(response.headers.get('www-authenticate')).toContain('scope="read write"')
      expect((await get('/writing/', bearer(await issue({ scope: 'read write' })))).status).toBe(200)
    })

    test('H56: the client sets no rule, neither to open nor to close', async () => {
      const token = await issue({ scope: 'read' })
      const rule = { 'X-Assay-Require': 'scope=read' }
      expect((await get('/writing/?scope=read', bearer(token, rule))).status).toBe(403)
      expect((await get('/?scope=write', bearer(token, { 'X-Assay-Require': 'scope=write' }))).status).toBe(
        200,
      )
      expect(backend.heard[0]!.headers).not.toHaveProperty('x-assay-require')
    })

    test('H56: a rule with a typo, a rule twice and a question with a typo open nothing', async () => {
      const token = await issue({ scope: 'read' })
      for (const path of ['/unknown-rule/', '/repeated-rule/', '/typo/'])
        expect((await get(path, bearer(token))).status).toBe(403)
      expect(backend.heard).toEqual([])
    })

    test('nobody outside can ask through nginx', async () => {
      const token = await issue({ scope: 'read' })
      for (const path of ['/_assay/verify', '/_assay/verify/scope=read', '/_assay/other'])
        expect((await get(path, bearer(token))).status).toBe(404)
    })

    test('a 500 that has nothing to do with the token stays a 500', async () => {
      const token = await issue({ scope: 'read' })
      for (const path of ['/before/', '/after/fail'])
        expect((await get(path, bearer(token))).status).toBe(500)
    })

    test('a revoked token is refused within N', async () => {
      const token = await issue({ scope: 'read' })
      expect((await get('/', bearer(token))).status).toBe(200)
      const revoked = await server.fetch('/revoke', {
        method: 'POST',
        headers: { Authorization: `Bearer ${apiKey}` },
        body: new URLSearchParams({ token }),
      })
      expect(revoked.status).toBe(200)
      const acknowledged = performance.now()
      while ((await get('/', bearer(token))).status === 200)
        expect(performance.now() - acknowledged).toBeLessThan(server.config.maxStaleness)
      expect((await get('/', bearer(token))).status).toBe(401)
    })

    test('200 requests, allowed and denied, take no new connection to Assay', async () => {
      const tokens = [await issue({ scope: 'read' }), 'nonsense']
      await get('/', bearer(tokens[0]!))
      const before = server.connections()
      const statuses = new Set<number>()
      for (let i = 0; i < 200; i++)
        statuses.add((await get(i % 3 ? '/' : '/writing/', bearer(tokens[i % 2]!))).status)
      expect([...statuses].sort()).toEqual([200, 401, 403])
      expect(server.connections() - before).toBe(0)
    })

    test('state unknown is 503 with Retry-After, never a no; and it is over when the database is back', async () => {
      const token = await issue({ scope: 'read' })
      const seen = new Set<number>()
      const status = async () => {
        const response = await get('/', bearer(token))
        seen.add(response.status)
        if (response.status === 503) expect(response.headers.get('retry-after')).toBe('1')
        return response.status
      }
      server.breakDatabase()
      await expect.poll(status, { timeout: 5_000, interval: 10 }).toBe(503)
      server.restoreDatabase()
      await expect.poll(status, { timeout: 5_000, interval: 10 }).toBe(200)
      expect([...seen].sort()).toEqual([200, 503])
    })

    describe('in a server block that would open the door', () => {
      let hostile: Nginx

      const surroundings = {
        http: `proxy_cache_path cache keys_zone=all:1m; proxy_cache all; proxy_cache_valid any 1m;
        proxy_ignore_headers Cache-Control Expires; proxy_cache_key $request_uri;
        proxy_set_header Authorization "Bearer nonsense";`,
        server: `proxy_intercept_errors on; error_page 401 403 500 502 503 504 =200 /open/;
        auth_request /_assay/verify; location ~ verify { return 200; }`,
      }

      beforeAll(async () => {
        hostile = await startNginx({ assayPort: server.port, backendPort: backend.port, ...surroundings })
      })
      afterAll(() => hostile?.stop())

      const ask = async (path: string, token: string) =>
        (await fetch(hostile.url + path, bearer(token))).status

      test('the rules and the answers are the same', async () => {
        const token = await issue({ scope: 'read' })
        expect(await ask('/reading/a', token)).toBe(200)
        expect(await ask('/reading/a', 'nonsense')).toBe(401)
        expect(await ask('/writing/', token)).toBe(403)
      })
    })

    describe('while Assay is down', () => {
      let alone: Nginx

      beforeAll(async () => {
        const gone = await startServer()
        await gone.stop()
        alone = await startNginx({
          assayPort: gone.port,
          backendPort: backend.port,
          http: 'error_page 502 =200 /open/;',
        })
      })
      afterAll(() => alone?.stop())

      test('it is 503 with Retry-After, and nothing reaches the backend', async () => {
        for (const headers of [{}, { Authorization: 'Bearer nonsense' }]) {
          const response = await fetch(`${alone.url}/`, { headers })
          expect(response.status).toBe(503)
          expect(response.headers.get('retry-after')).toBe('1')
        }
        expect(backend.heard).toEqual([])
        expect((await fetch(`${alone.url}/open/`)).status).toBe(200)
      })
    })
  },
)
