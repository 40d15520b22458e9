import { once } from 'node:events'
import { type OutgoingHttpHeaders, request } from 'node:http'
import { connect } from 'node:http2'
import { afterAll, beforeAll, beforeEach, describe, expect, onTestFinished, test } from 'vitest'
import { type Listener, startListener } from '../support/backends.ts'
import { findNginx, type Nginx, type Options, protect, startNginx } from '../support/nginx.ts'
import { freePort } from '../support/port.ts'
import { bearer, type Customer, makeWorld, type Replica, type World } from '../support/world.ts'

/** Risks at the edge: input from clients besides their token, and settings of users around the shipped files. */

const IDENTITY = ['Customer', 'Subject', 'Scope', 'Audience', 'Session', 'Token-Id', 'Expires', 'Claims']
const FORGED = Object.fromEntries(IDENTITY.map(name => [`X-Auth-${name}`, 'forged']))

const LOCATIONS = `
  location /with-token/ { ${protect('/_assay/verify')} proxy_set_header Authorization $http_authorization; }
  location /typo/ { ${protect('/_assay/verfy/scope=read')} }
  location /capitals/ { ${protect('/_Assay/verify/scope=read')} }
  location /no-slash/ { ${protect('/_assay')} }
  location /question-mark/ { ${protect('/_assay/verify?scope=read')} }
  location /two-slashes/ { ${protect('/_assay/verify//scope=read')} }
  location /unknown-rule/ { ${protect('/_assay/verify/scpoe=read')} }
  location /repeated-rule/ { ${protect('/_assay/verify/scope=read&scope=read')} }
  location /before/ { ${protect('/_assay/verify')} return 500; }
  location /after/ { ${protect('/_assay/verify')} proxy_intercept_errors on; }`

type Upload = (port: number, path: string, headers: Record<string, string>, size: number) => Promise<number>

const http1 =
  (framing: (size: number) => OutgoingHttpHeaders): Upload =>
  (port, path, headers, size) =>
    new Promise((resolve, reject) => {
      const all = { ...headers, ...framing(size) }
      const sent = request({ port, path, method: 'POST', agent: false, headers: all }, response => {
        response.resume()
        resolve(response.statusCode!)
      })
      // nginx may answer and close while the body is still being sent. Then there is nothing left to reject.
      sent.on('error', reject).end(Buffer.alloc(size, 'x'))
    })

/** HTTP/2 without TLS, with prior knowledge. */
const http2 =
  (framing: (size: number) => OutgoingHttpHeaders): Upload =>
  async (port, path, headers, size) => {
    const session = connect(`http://127.0.0.1:${port}`)
    const stream = session.request({ ':method': 'POST', ':path': path, ...headers, ...framing(size) })
    stream.on('error', () => {}).end(Buffer.alloc(size, 'x'))
    const [answer] = await once(stream, 'response')
    stream.resume()
    if (!stream.closed) await once(stream, 'close')
    session.close()
    return answer[':status']
  }

const UPLOADS = [
  {
    name: 'HTTP/1.1 with Content-Length',
    send: http1(size => ({ 'Content-Length': size })),
    over: 'port' as const,
  },
  {
    name: 'HTTP/1.1, chunked',
    send: http1(() => ({ 'Transfer-Encoding': 'chunked' })),
    over: 'port' as const,
  },
  {
    name: 'HTTP/2 with Content-Length',
    send: http2(size => ({ 'Content-Length': size })),
    over: 'h2' as const,
  },
  { name: 'HTTP/2 without a length', send: http2(() => ({})), over: 'h2' as const },
]

describe.skipIf(!findNginx())('nginx with the shipped files (skipped if not installed)', () => {
  let world: World
  let assay: Replica
  let customer: Customer
  let assayPort: number
  let backend: Listener
  let nginx: Nginx
  let token: string

  beforeAll(async () => {
    world = await makeWorld()
    assay = await world.replica()
    customer = await assay.signUp()
  })
  afterAll(() => world?.stop())
  beforeEach(async () => {
    assayPort = (await assay.serve()).port
    backend = await listener()
    nginx = await start({ locations: LOCATIONS })
    token = (await customer.issue({ scope: 'read' })).json.access_token
  })

  async function listener() {
    const started = await startListener()
    onTestFinished(started.stop)
    return started
  }

  async function start(options: Partial<Options> = {}) {
    const started = await startNginx({ assay: [assayPort], backend: backend.port, ...options })
    onTestFinished(started.stop)
    return started
  }

  async function get(path: string, init: RequestInit = {}, at = nginx) {
    const response = await fetch(at.url + path, { headers: bearer(token), ...init })
    await response.arrayBuffer()
    return response
  }

  test('H41 CVE-2026-34457 identity headers with underscores don’t reach the backend either', async () => {
    const underscored = Object.fromEntries(
      IDENTITY.map(name => [`X_Auth_${name.replaceAll('-', '_')}`, 'forged']),
    )
    expect((await get('/', { headers: { ...bearer(token), ...FORGED, ...underscored } })).status).toBe(200)
    const { headers } = backend.heard[0]!
    expect(JSON.stringify(headers)).not.toContain('forged')
    expect(headers['x-auth-customer']).toBe(customer.id)
    expect(headers['x-request-id']).toMatch(/^[0-9a-f]{32}$/)
  })

  test('H40 the largest identity fits into nginx’s default buffers', async () => {
    const claims = { note: 'n'.repeat(1_900) }
    const { json } = await customer.issue({ scope: 'read', claims })
    expect((await get('/', { headers: bearer(json.access_token) })).status).toBe(200)
    const heard = Buffer.from(String(backend.heard[0]!.headers['x-auth-claims']), 'base64url')
    expect(JSON.parse(heard.toString())).toEqual(claims)
  })

  test('H41 Assay gets the token, the request id and no other input of the client', async () => {
    // A listener in place of Assay: this tests what nginx sends, not the answer.
    const inPlace = await listener()
    const asking = await start({ assay: [inPlace.port] })
    const headers = { ...FORGED, 'X-Assay-Require': 'scope=x', 'X-Forwarded-For': '1.2.3.4', Cookie: 'a=b' }
    const post = { method: 'POST', body: 'x'.repeat(100_000), headers: { ...bearer('t'), ...headers } }
    await get('/reading/?aud=x', post, asking)
    expect(inPlace.heard.map(({ path, headers }) => ({ path, headers }))).toEqual([
      {
        path: '/verify?scope=read',
        headers: { host: 'assay', authorization: 'Bearer t', 'x-request-id': expect.any(String) },
      },
    ])
  })

  test('the token ends at nginx, unless the location passes it on', async () => {
    await get('/')
    await get('/with-token/')
    expect(backend.heard.map(({ headers }) => headers.authorization)).toEqual([undefined, `Bearer ${token}`])
  })

  test('a body of any length reaches the backend, and the body of a denied request does not', async () => {
    const post = { method: 'POST', body: 'x'.repeat(100_000) }
    expect((await get('/', post)).status).toBe(200)
    expect(backend.heard[0]!.headers['content-length']).toBe('100000')
    expect((await get('/', { ...post, headers: bearer('nonsense') })).status).toBe(401)
    expect(backend.heard).toHaveLength(1)
  })

  describe('an upload of several megabytes', () => {
    const SIZE = 5_000_000
    const KINDS = ['verify', 'cached']

    /** With the default limit in server {}, except in the locations under /large/. */
    async function startUploads() {
      const h2 = await freePort()
      const locations = KINDS.flatMap(kind => [
        `location /small/${kind}/ { ${protect(`/_assay/${kind}/scope=read`)} }`,
        `location /large/${kind}/ { client_max_body_size 8m; ${protect(`/_assay/${kind}/scope=read`)} }`,
      ])
      const started = await start({
        http: 'proxy_cache_path cache keys_zone=assay:1m inactive=10s use_temp_path=off;',
        server: `listen 127.0.0.1:${h2} http2; include assay/cached.conf;`,
        locations: locations.join('\n'),
      })
      return { port: started.port, h2 }
    }

    test.each(UPLOADS)('reaches the backend complete over $name', async ({ send, over }) => {
      const ports = await startUploads()
      for (const kind of KINDS)
        for (let i = 0; i < 2; i++)
          expect(await send(ports[over], `/large/${kind}/`, bearer(token), SIZE)).toBe(200)
      expect(backend.heard.map(({ size }) => size)).toEqual([SIZE, SIZE, SIZE, SIZE])
    })

    test.each(UPLOADS)('is 413 over $name if its location does not allow it', async ({ send, over }) => {
      const ports = await startUploads()
      for (const kind of KINDS) {
        expect(await send(ports[over], `/small/${kind}/`, bearer(token), SIZE)).toBe(413)
        expect(await send(ports[over], `/large/${kind}/`, bearer(token), 2 * SIZE)).toBe(413)
      }
      expect(backend.heard).toEqual([])
    })

    test.each(UPLOADS)('is 401 over $name without a token', async ({ send, over }) => {
      const ports = await startUploads()
      for (const kind of KINDS) expect(await send(ports[over], `/large/${kind}/`, {}, SIZE)).toBe(401)
      expect(backend.heard).toEqual([])
    })
  })

  test('H56 the client cannot set a verify rule, neither a weaker nor a stricter one', async () => {
    const ruled = (scope: string) => ({ headers: { ...bearer(token), 'X-Assay-Require': `scope=${scope}` } })
    expect((await get('/writing/?scope=read', ruled('read'))).status).toBe(403)
    expect((await get('/?scope=write', ruled('write'))).status).toBe(200)
    expect(backend.heard[0]!.headers).not.toHaveProperty('x-assay-require')
  })

  test('H56 a rule with a typo, a repeated rule and a verify URL with a typo allow nothing', async () => {
    const rules = ['/unknown-rule/', '/repeated-rule/', '/two-slashes/']
    for (const path of [...rules, '/typo/', '/capitals/', '/no-slash/', '/question-mark/'])
      expect((await get(path)).status).toBe(403)
    expect(backend.heard).toEqual([])
  })

  test('H56 a verify URL that names the preflight location by mistake allows nothing', async () => {
    const wrong = `location /wrong/ { ${protect('/_assay/preflight')} }`
    const mistaken = await start({ locations: `include assay/cors.conf; ${wrong}` })
    const page = { Origin: 'https://app.example.com', 'Access-Control-Request-Method': 'GET' }
    for (const method of ['GET', 'OPTIONS'])
      expect((await get('/wrong/', { method }, mistaken)).status).toBe(403)
    const preflight = (port: number) =>
      new Promise<number>((resolve, reject) => {
        const sent = request(
          { port, path: '/wrong/', method: 'OPTIONS', agent: false, headers: page },
          response => {
            response.resume()
            resolve(response.statusCode!)
          },
        )
        sent.on('error', reject).end()
      })
    expect(await preflight(mistaken.port)).toBe(204)
    expect(backend.heard).toEqual([])
  })

  test('clients cannot call the verify location through nginx', async () => {
    for (const path of ['/_assay/verify', '/_assay/verify/scope=read', '/_assay/other'])
      expect((await get(path)).status).toBe(404)
  })

  test('a 500 that is unrelated to the token stays a 500', async () => {
    for (const path of ['/before/', '/after/fail']) expect((await get(path)).status).toBe(500)
  })

  test('unsafe settings in a server block allow nothing', async () => {
    const hostile = await start({
      http: `proxy_cache_path cache keys_zone=all:1m; proxy_cache all; proxy_cache_valid any 1m;
        proxy_ignore_headers Cache-Control Expires; proxy_cache_key $request_uri;
        proxy_set_header Authorization "Bearer nonsense";`,
      server: `proxy_intercept_errors on; error_page 401 403 500 502 503 504 =200 /open/;
        auth_request /_assay/verify; location ~ verify { return 200; }`,
    })
    expect((await get('/reading/a', {}, hostile)).status).toBe(200)
    expect((await get('/reading/a', { headers: bearer('nonsense') }, hostile)).status).toBe(401)
    expect((await get('/writing/', {}, hostile)).status).toBe(403)
  })

  test('H29 while Assay is down nginx answers 503 with Retry-After and forwards nothing', async () => {
    const alone = await start({ assay: [await freePort()], http: 'error_page 502 =200 /open/;' })
    for (const headers of [{}, bearer(token)]) {
      const response = await get('/', { headers }, alone)
      expect(response.status).toBe(503)
      expect(response.headers.get('retry-after')).toBe('1')
    }
    expect(backend.heard).toEqual([])
    expect((await get('/open/', {}, alone)).status).toBe(200)
  })
})
