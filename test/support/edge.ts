import { randomBytes } from 'node:crypto'
import type { IncomingHttpHeaders, RequestListener } from 'node:http'
import { afterAll, beforeAll, beforeEach, describe, expect, onTestFinished, test } from 'vitest'
import { type Heard, type Listener, startByteListener, startListener } from './backends.ts'
import type { Addresses, Gateway } from './gateway.ts'
import { openLink } from './link.ts'
import { AMBIGUOUS, RAW_FOLDING, READINGS, TARGETS, UNAMBIGUOUS, WITH_PARAMETERS } from './paths.ts'
import { freePort } from './port.ts'
import { startAssay } from './process.ts'
import { exchange } from './raw.ts'
import { ADMIN_TOKEN, bearer, type Customer, makeWorld, type Replica, type World } from './world.ts'

/**
 * What every gateway must guarantee with its shipped files. All of them protect the same three areas: /reports/ requires
 * the scope `reports`, /public/ requires nothing, and every other path requires a valid token.
 */

const MASTER_KEYS = `m1:${randomBytes(32).toString('base64')}`

const IDENTITY = ['Customer', 'Subject', 'Scope', 'Audience', 'Session', 'Token-Id', 'Expires', 'Claims']
const NAMES = IDENTITY.map(name => `X-Auth-${name}`)

/** Variants of a header name that some backend reads as the same name. */
const SPELLINGS = {
  'as it is': (name: string) => name,
  'in capitals': (name: string) => name.toUpperCase(),
  'in small letters': (name: string) => name.toLowerCase(),
  'with underscores': (name: string) => name.replaceAll('-', '_'),
  'with a first underscore': (name: string) => name.replace('-', '_'),
  'with a second underscore': (name: string) => name.replace('h-', 'h_'),
  'with a last underscore': (name: string) => name.replace(/-(?=\w+$)/, '_'),
  'with dots': (name: string) => name.replaceAll('-', '.'),
  'with tildes': (name: string) => name.replaceAll('-', '~'),
  ...Object.fromEntries(
    [..."!#$%&'*+^`|"].map(sign => [`with ${sign}`, (name: string) => name.replaceAll('-', sign)]),
  ),
  'with a blank before the colon': (name: string) => `${name} `,
}

const lines = (...all: string[]) => `${all.join('\r\n')}\r\n\r\n`

const request = (path: string, token: string | undefined, ...more: string[]) =>
  lines(
    `GET ${path} HTTP/1.1`,
    'Host: gateway.test',
    'Connection: close',
    ...(token === undefined ? [] : [`Authorization: Bearer ${token}`]),
    ...more,
  )

const statusOf = (text: string) => Number(/^HTTP\/1\.1 (\d{3}) /.exec(text)?.[1])

/** Ignores empty headers: some gateways forward those. */
const identityOf = (headers: IncomingHttpHeaders) =>
  Object.fromEntries(
    Object.entries(headers).filter(([name, value]) => name.startsWith('x-auth-') && value !== ''),
  )

/** Forged header names that a backend might read, in any variant. */
const forgedIn = ({ raw }: Heard) =>
  raw.filter(
    (name, index) =>
      index % 2 === 0 && /^x[^a-z0-9](auth|assay)[^a-z0-9]/i.test(name) && raw[index + 1]!.includes('forged'),
  )

export function holdsTheEdge(
  name: string,
  isThere: () => string | undefined,
  start: (addresses: Addresses) => Promise<Gateway>,
) {
  describe.skipIf(!isThere())(`${name} with the shipped files (skipped if not installed)`, () => {
    let world: World
    let assay: Replica
    let customer: Customer
    let server: Awaited<ReturnType<Replica['serve']>>
    let backend: Listener
    let gateway: Gateway
    let token: string

    beforeAll(async () => {
      world = await makeWorld({ MASTER_KEYS })
      assay = await world.replica()
      customer = await assay.signUp()
    })
    afterAll(() => world?.stop())
    beforeEach(async () => {
      server = await assay.serve()
      backend = await listener()
      gateway = await gatewayTo(server.port)
      token = await issue({ subject: 'ann', scope: 'read' })
    })

    async function listener(answer?: RequestListener) {
      const started = await startListener(answer)
      onTestFinished(started.stop)
      return started
    }

    async function gatewayTo(...ports: number[]) {
      const started = await start({ assay: ports, backend: backend.port })
      onTestFinished(started.stop)
      return started
    }

    const issue = async (wanted: object) => (await customer.issue(wanted)).json.access_token as string

    async function get(path: string, init: RequestInit = {}, at = gateway) {
      const response = await fetch(at.url + path, { redirect: 'manual', headers: bearer(token), ...init })
      await response.arrayBuffer()
      return response
    }

    /** Sends a request byte for byte and returns the status. */
    async function send(bytes: string, at = gateway, deadline = 1_000) {
      return statusOf((await exchange(at.port, bytes, deadline)).text())
    }

    test('a valid token is accepted: the backend gets its identity headers, but not the token', async () => {
      const session = await customer.session({
        subject: 'ann',
        audience: 'shop',
        scope: 'reports',
        claims: { plan: 'gold' },
      })
      const headers = bearer(session.access_token)
      expect((await get('/reports/7?page=2', { headers })).status).toBe(200)
      const [heard] = backend.heard
      expect(heard!.path).toBe('/reports/7?page=2')
      expect(identityOf(heard!.headers)).toEqual({
        'x-auth-customer': customer.id,
        'x-auth-subject': 'ann',
        'x-auth-scope': 'reports',
        'x-auth-audience': 'shop',
        'x-auth-session': session.session_id,
        'x-auth-token-id': expect.stringMatching(/^\S{16,}$/),
        'x-auth-expires': expect.stringMatching(/^\d{10}$/),
        'x-auth-claims': Buffer.from('{"plan":"gold"}').toString('base64url'),
      })
      expect(heard!.headers.authorization).toBeUndefined()
      expect(heard!.headers['x-request-id']).toMatch(/^[0-9a-f-]{32,36}$/)
    })

    test('a missing or bad token is 401 with the challenge', async () => {
      const without = await get('/', { headers: {} })
      expect(without.status).toBe(401)
      expect(without.headers.get('www-authenticate')).toMatch(/^Bearer/)
      expect(without.headers.get('www-authenticate')).not.toContain('error=')
      for (const bad of ['nonsense', 'a.b.c', customer.refreshToken, `${token}x`]) {
        const response = await get('/', { headers: bearer(bad) })
        expect(response.status).toBe(401)
        expect(response.headers.get('www-authenticate')).toContain('error="invalid_token"')
      }
      expect(backend.heard).toEqual([])
    })

    test('a token without the scope is 403 with a challenge that names the scope', async () => {
      const { status, headers } = await get('/reports/')
      expect(status).toBe(403)
      expect(headers.get('www-authenticate')).toContain('error="insufficient_scope"')
      expect(headers.get('www-authenticate')).toContain('scope="reports"')
      expect(backend.heard).toEqual([])
    })

    test('a missing token is 401 for every method', async () => {
      for (const method of ['HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS', 'FETCH'])
        expect((await get('/', { method, headers: {} })).status).toBe(401)
      const key = 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=='
      const upgrade = request('/', undefined, 'Upgrade: websocket', 'Sec-WebSocket-Version: 13', key)
      expect(await send(upgrade.replace('close', 'Upgrade'))).toBe(401)
      expect(backend.heard).toEqual([])
    })

    test('a revoked token is refused on the next request: no answer is cached', async () => {
      expect((await get('/')).status).toBe(200)
      await assay.postForm('/revoke', { token }, bearer(customer.apiKey))
      expect((await get('/')).status).toBe(401)
    })

    test('H41 CVE-2026-34457 no identity header of the client reaches the backend in any spelling', async () => {
      const spellings = Object.values(SPELLINGS).map(spell => NAMES.map(name => `${spell(name)}: forged`))
      const twice = NAMES.flatMap(name => [`${name}: forged`, `${name}: forged`])
      const rule = ['X-Assay-Require: forged']
      const statuses: number[] = []
      for (const headers of [...spellings, twice, rule])
        for (const [path, sent] of [
          ['/', token],
          ['/public/', undefined],
        ] as const)
          statuses.push(await send(request(path, sent, ...headers)))
      expect(statuses.slice(0, 2)).toEqual([200, 200])
      expect(statuses.filter(status => ![200, 400].includes(status))).toEqual([])
      expect(backend.heard.length).toBeGreaterThanOrEqual(18)
      expect(backend.heard.flatMap(forgedIn)).toEqual([])
      const subjects = backend.heard.map(({ path, headers }) => `${path} ${headers['x-auth-subject'] ?? ''}`)
      expect([...new Set(subjects)].sort()).toEqual(['/ ann', '/public/ '])
    })

    test('H41 a client cannot remove an identity header by naming it in Connection', async () => {
      const hop = NAMES.join(', ')
      await send(request('/', token).replace('Connection: close', `Connection: close, ${hop}`))
      await send(request('/', token, `Connection: ${hop}`))
      await send(request('/', token, `Connection: ${hop.toLowerCase()}`))
      for (const { headers } of backend.heard) expect(headers['x-auth-customer']).toBe(customer.id)
    })

    test('H41 Assay gets the client’s token and no other input of the client to decide by', async () => {
      const inPlace = await listener((_, response) => response.end())
      const asking = await gatewayTo(inPlace.port)
      const names = [...NAMES, 'X-Assay-Require', 'X-Consistency', 'X-Forwarded-For', 'X-Forwarded-Uri']
      const headers = Object.fromEntries(
        [...names, 'X-Request-Id', 'Cookie', 'Forwarded'].map(one => [one, 'forged']),
      )
      const post = { method: 'POST', body: 'forged'.repeat(10_000), headers: { ...bearer('t'), ...headers } }
      await get('/reports/?aud=forged', post, asking)
      const [question, ...more] = inPlace.heard.filter(({ path }) => path.startsWith('/verify'))
      expect(more).toEqual([])
      const rule = `${question!.path}${question!.headers['x-assay-require'] ?? ''}`
      expect(rule).toMatch(/^\/verify\??scope=reports$/)
      expect(question!.headers.authorization).toBe('Bearer t')
      expect(question!.headers.host).toBe('assay')
      expect(JSON.stringify(question)).not.toContain('forged')
      expect(question!.size).toBe(0)
    })

    test('two Authorization headers are refused, or one of them is verified; neither reaches the backend', async () => {
      const other = await (await assay.signUp()).issue({})
      const tokens = [token, other.json.access_token, 'nonsense']
      for (const first of tokens)
        for (const second of tokens) {
          const status = await send(request('/', first, `Authorization: Bearer ${second}`))
          expect([200, 400, 401]).toContain(status)
        }
      for (const { headers } of backend.heard) expect(headers.authorization).toBeUndefined()
    })

    test('H56 the client cannot set a verify rule, neither a weaker nor a stricter one', async () => {
      const ruled = (rule: string) => ({ headers: { ...bearer(token), 'X-Assay-Require': rule } })
      expect((await get('/reports/?scope=read', ruled('scope=read'))).status).toBe(403)
      expect((await get('/?scope=write&scpoe=x', ruled('scope=write'))).status).toBe(200)
      expect(backend.heard.map(({ path }) => path)).toEqual(['/?scope=write&scpoe=x'])
      expect(backend.heard[0]!.headers).not.toHaveProperty('x-assay-require')
    })

    test('H41 no header makes the backend see another path', async () => {
      const names = [
        'X-Original-URL',
        'X-Rewrite-URL',
        'SCRIPT_NAME',
        'PATH_INFO',
        'Script_Name',
        'Path_Info',
      ]
      for (const spell of Object.values(SPELLINGS))
        for (const usual of [request('/', token), request('/public/', undefined)]) {
          const forged = names.map(one => `${spell(one)}: /forged`).join('\r\n')
          await send(usual.replace('Connection: close', `Connection: close\r\n${forged}`))
        }
      expect(backend.heard.length).toBeGreaterThanOrEqual(12)
      const routing = /^(x[^a-z0-9](original|rewrite)[^a-z0-9]url|(script|path)_(name|info))$/i
      for (const { raw } of backend.heard) {
        const forged = raw.filter(
          (one, index) => index % 2 === 0 && routing.test(one) && raw[index + 1] !== '',
        )
        expect(forged).toEqual([])
      }
    })

    test('H41 CVE-2026-76835 no header makes the gateway see another path or method', async () => {
      const names = [
        'X-Original-URL',
        'X-Original-URI',
        'X-Original-Path',
        'X-Rewrite-URL',
        'X-Forwarded-Uri',
      ]
      for (const one of [...names, 'X-Forwarded-Prefix', 'X-Forwarded-Path', 'X-Envoy-Original-Path'])
        expect((await get('/reports/', { headers: { ...bearer(token), [one]: '/public/' } })).status).toBe(
          403,
        )
      for (const one of ['X-HTTP-Method-Override', 'X-Forwarded-Method', 'X-Original-Method'])
        expect((await get('/', { headers: { [one]: 'OPTIONS' } })).status).toBe(401)
      expect(backend.heard).toEqual([])
    })

    /** Sends each target without a token and with one that lacks the scope `reports`; returns the statuses by target. */
    async function sendAll(targets: string[]) {
      const statuses = new Map<string, number[]>()
      const sendOne = (target: string, sent?: string) => send(request(target, sent), gateway, 10_000)
      const queue = [...targets]
      const work = async () => {
        for (let target = queue.pop(); target !== undefined; target = queue.pop())
          statuses.set(target, [await sendOne(target), await sendOne(target, token)])
      }
      await Promise.all(Array.from({ length: 16 }, work))
      return statuses
    }

    test('H41 H60 no spelling of a path bypasses its rule, however the backend reads it', async () => {
      const usual = await sendAll(['/public/x', '/reports/x'])
      expect(usual).toEqual(
        new Map([
          ['/public/x', [200, 200]],
          ['/reports/x', [401, 403]],
        ]),
      )
      await sendAll(TARGETS)
      // No target spells /books or /admin without a letter that folds to k or i.
      const wrong = backend.heard.flatMap(({ path, headers }) => {
        const isPublic = !headers['x-auth-customer']
        return Object.entries(READINGS)
          .map(([reading, read]) => ({ reading, to: read(path) }))
          .filter(
            ({ to }) => /^\/(reports|books|admin)([/.]|$)/.test(to) || (isPublic && !/^\/public\//.test(to)),
          )
          .map(({ reading, to }) => `${JSON.stringify(path)}, ${reading}, is ${JSON.stringify(to)}`)
      })
      expect(wrong).toEqual([])
    })

    test('H41 H60 a path that can be read in two ways is 400, and no other path is', async () => {
      for (const [target, statuses] of await sendAll(AMBIGUOUS))
        expect({ target, statuses }).toEqual({ target, statuses: [400, 400] })
      expect(backend.heard).toEqual([])
      for (const target of UNAMBIGUOUS) expect(await send(request(target, undefined))).toBe(200)
      expect(backend.heard.map(({ path }) => path)).toEqual(UNAMBIGUOUS)
    })

    test('H60 a letter that folds to ASCII is 400 in a path, even unencoded', async () => {
      const bytes = await startByteListener()
      onTestFinished(bytes.stop)
      const { port, stop } = await start({ assay: [server.port], backend: bytes.port })
      onTestFinished(stop)
      const sendThere = async (path: string) =>
        statusOf((await exchange(port, request(path, undefined), 1_000)).text())
      for (const path of RAW_FOLDING) expect([path, await sendThere(path)]).toEqual([path, 400])
      expect(await sendThere('/public/x')).toBe(200)
      expect(bytes.heard.map(line => line.split(' ')[1])).toEqual(['/public/x'])
    })

    test('H60 a path with parameters is 400; a query may contain anything', async () => {
      for (const [target, statuses] of await sendAll(WITH_PARAMETERS))
        expect({ target, statuses }).toEqual({ target, statuses: [400, 400] })
      expect(backend.heard).toEqual([])
      for (const query of ['a;b', 'a%3bb', 'a=/..;/reports', 'a=//b/../c%5c%2f%00%253b'])
        expect(await send(request(`/public/x?${query}`, undefined))).toBe(200)
    })

    test('H60 the backend gets a path, never an absolute URL', async () => {
      const path = `/public/x?a=[::1]&b=http://c?d%20e&f="{g}"|\`^<h>&i=${'j'.repeat(7_000)}`
      for (const authority of ['gateway.test', 'gateway.test:80', '[::1]', '[::1]:80']) {
        const absolute = request(`http://${authority}${path}`, undefined)
        expect(await send(absolute.replace('Host: gateway.test', `Host: ${authority}`))).toBe(200)
      }
      await sendAll(TARGETS.filter(target => target.startsWith('http')))
      expect(backend.heard.slice(0, 4).map(heard => heard.path)).toEqual(Array(4).fill(path))
      expect(backend.heard.map(heard => heard.path).filter(heard => !heard.startsWith('/'))).toEqual([])
    })

    test('H60 no Host header with a URL delimiter reaches the backend', async () => {
      for (const sign of ['?', '#', '\\', '/', '@'])
        for (const host of [`gateway.test${sign}`, `gateway.test${sign}x`, `gateway.test:80${sign}`])
          for (const usual of [request('/public/x', undefined), request('/', token)])
            await send(usual.replace('Host: gateway.test', `Host: ${host}`))
      expect(backend.heard.map(({ headers }) => headers.host).filter(host => /[?#\\/@]/.test(host!))).toEqual(
        [],
      )
    })

    test('an encoded path reaches the backend as it was sent', async () => {
      expect(await send(request('/a%20b/%C3%BC?c=%2F..%2F%5C', token))).toBe(200)
      expect(backend.heard.map(({ path }) => path)).toEqual(['/a%20b/%C3%BC?c=%2F..%2F%5C'])
    })

    test('a body of any length reaches the backend, and the body of a denied request does not', async () => {
      const post = { method: 'POST', body: 'x'.repeat(100_000) }
      expect((await get('/', { ...post, headers: bearer(token) })).status).toBe(200)
      expect((await get('/', { ...post, headers: bearer('nonsense') })).status).toBe(401)
      expect(backend.heard.map(({ size }) => size)).toEqual([100_000])
    })

    test('H41 a client can upgrade its connection to the backend only to a websocket', async () => {
      const upgrades = [
        ['h2c'],
        ['h2c', 'websocket'],
        ['websocket', 'h2c'],
        ['websocket, h2c'],
        ['TLS/1.0'],
        ['x'],
      ]
      for (const names of [...upgrades, ['websocket']])
        for (const hop of ['Upgrade', 'Upgrade, HTTP2-Settings'])
          for (const [path, sent] of [
            ['/', token],
            ['/public/', undefined],
          ] as const) {
            const lines = names.map(upgrade => `Upgrade: ${upgrade}`)
            const asked = request(path, sent, ...lines, 'HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA')
            await send(asked.replace('Connection: close', `Connection: close, ${hop}`))
          }
      expect(backend.heard.length).toBeGreaterThanOrEqual(12)
      for (const { headers } of backend.heard) {
        expect(headers['http2-settings']).toBeUndefined()
        expect([undefined, 'websocket']).toContain(headers.upgrade)
      }
    })

    test('H41 a trailer does not become a header', async () => {
      const chunked = request('/', token, 'Transfer-Encoding: chunked', 'Trailer: X-Auth-Subject')
      await send(`${chunked.replace('GET', 'POST')}3\r\nabc\r\n0\r\nX-Auth-Subject: forged\r\n\r\n`)
      for (const { headers } of backend.heard) expect(headers['x-auth-subject']).toBe('ann')
    })

    test('H40 the largest identity reaches the backend complete, or the request is refused', async () => {
      const claims = { note: 'n'.repeat(1_900) }
      token = await issue({ scope: 'read', claims })
      for (const size of [0, 4_000, 8_000, 10_000, 12_000, 14_000]) {
        const { status } = await get('/', { headers: { ...bearer(token), 'X-Large': 'l'.repeat(size) } })
        expect(size > 4_000 ? [200, 400, 413, 414, 431, 500] : [200]).toContain(status)
      }
      expect(backend.heard.length).toBeGreaterThanOrEqual(2)
      for (const { headers } of backend.heard) {
        expect(headers['x-auth-customer']).toBe(customer.id)
        const heard = Buffer.from(String(headers['x-auth-claims']), 'base64url')
        expect(JSON.parse(heard.toString())).toEqual(claims)
      }
    })

    test('H40 a subject that looks like a gateway variable is not expanded', async () => {
      const subject = '{env.HOME}{http.request.host}$host$HOME{http.request.header.Host}'
      await get('/', { headers: bearer(await issue({ subject })) })
      expect(backend.heard.map(({ headers }) => headers['x-auth-subject'])).toEqual([subject])
    })

    test('H42 account requests are authenticated by Assay itself, which gets the client’s address', async () => {
      expect((await get('/api/auth/me', { headers: bearer(customer.accessToken) })).status).toBe(200)
      expect((await get('/api/keys')).status).toBe(403)
      const inPlace = await listener((_, response) => response.end())
      const asking = await gatewayTo(inPlace.port)
      await get('/api/keys', { headers: { ...bearer('t'), 'X-Forwarded-For': '203.0.113.7' } }, asking)
      const heard = inPlace.heard.filter(({ path }) => path === '/api/keys')
      expect(heard.map(({ headers }) => [headers.authorization, headers['x-forwarded-for']])).toEqual([
        ['Bearer t', '127.0.0.1'],
      ])
    })

    test('concurrent requests each get their own identity', async () => {
      const customers = [customer, await assay.signUp(), await assay.signUp()]
      const callers = await Promise.all(
        Array.from({ length: 60 }, async (_, index) => {
          const one = customers[index % 3]!
          const good = index % 4 > 0
          const { status, json } = await one.issue({ subject: `subject-${index}` })
          expect(status).toBe(200)
          const sent = good ? (json.access_token as string) : 'nonsense'
          return { path: `/${index}`, id: one.id, subject: `subject-${index}`, good, sent }
        }),
      )
      // Assay runs in this process and could not answer health checks while it issued, so the gateway may consider it down.
      const refused = async () => (await get('/', { headers: bearer('nonsense') })).status
      await expect.poll(refused).toBe(401)
      const asked = await Promise.all(
        callers.map(async ({ sent, ...caller }) => {
          const { status } = await get(caller.path, { headers: bearer(sent) })
          return { ...caller, status }
        }),
      )
      expect(asked.filter(({ status, good }) => status !== (good ? 200 : 401))).toEqual([])
      const heard = new Map(backend.heard.map(({ path, headers }) => [path, headers]))
      expect(heard.size).toBe(45)
      for (const { path, id, subject, good } of asked)
        if (good) expect(heard.get(path)).toMatchObject({ 'x-auth-customer': id, 'x-auth-subject': subject })
    })

    test('a hundred requests in a row use few connections to Assay', async () => {
      const before = server.accepted()
      for (let i = 0; i < 100; i++) await get('/', { headers: bearer(i % 2 ? token : 'nonsense') })
      // One for the requests, and those of health checks.
      expect(server.accepted() - before).toBeLessThan(15)
    })

    test('H29 while Assay is down the gateway answers 503 with Retry-After and forwards nothing', async () => {
      const alone = await gatewayTo(await freePort())
      for (let i = 0; i < 5; i++)
        for (const headers of [{}, bearer(token)]) {
          const response = await get('/', { headers }, alone)
          expect(response.status).toBe(503)
          expect(response.headers.get('retry-after')).toBe('1')
        }
      expect(backend.heard).toEqual([])
      expect((await get('/public/', {}, alone)).status).toBe(200)
    })

    test('H29 while Assay hangs the gateway answers 503 within seconds', async () => {
      const silent = await listener(() => {})
      const waiting = await gatewayTo(silent.port)
      const asked = performance.now()
      expect((await get('/', {}, waiting)).status).toBe(503)
      expect(performance.now() - asked).toBeLessThan(8_000)
      expect(backend.heard).toEqual([])
    })

    test('only a 200 allows a request, whatever answers in place of Assay', async () => {
      // auth_request accepts every 2xx.
      const strange = name === 'nginx' ? [] : [200, 204, 206]
      for (const status of [...strange, 301, 302, 400, 404, 429, 500, 502, 503, 504]) {
        const inPlace = await listener((_, response) => {
          response.writeHead(status, { Location: '/public/', 'X-Auth-Subject': 'other' }).end()
        })
        const answer = await get('/', {}, await gatewayTo(inPlace.port))
        expect({ status, isYes: answer.ok }).toEqual({ status, isYes: false })
        expect([401, 403]).not.toContain(answer.status)
        if (status === 503) expect(answer.status).toBe(503)
      }
      expect(backend.heard).toEqual([])
    })

    test('an unreachable backend is not mistaken for an unreachable Assay', async () => {
      await backend.stop()
      const { status, headers } = await get('/')
      expect([500, 502, 503, 504]).toContain(status)
      expect(headers.get('retry-after')).toBeNull()
    })

    test('the gateway skips a replica that is down', async () => {
      const both = await gatewayTo(await freePort(), server.port)
      for (let i = 0; i < 50; i++) expect((await get('/', {}, both)).status).toBe(200)
    })

    test('H29 a replica that is cut off is 503 with Retry-After, never a denial, until it is back', async () => {
      const link = await openLink(world.url!)
      const { issuer } = world.config
      const cutOff = await startAssay({
        MASTER_KEYS,
        ADMIN_TOKEN,
        ISSUER: issuer,
        DATABASE_URL: link.url,
        MAX_STALENESS: '500ms',
      })
      onTestFinished(async () => {
        await cutOff.stop('SIGKILL')
        link.close()
      })
      const alone = await gatewayTo(cutOff.port)
      const both = await gatewayTo(cutOff.port, server.port)
      const answers = new Set<string>()
      const status = async () => {
        const { status, headers } = await get('/', {}, alone)
        answers.add(`${status} ${headers.get('retry-after')}`)
        return status
      }
      await expect.poll(status, { interval: 10 }).toBe(200)
      link.refuse()
      await expect.poll(status, { interval: 10 }).toBe(503)
      const late = new Set<number>()
      for (let i = 0; i < 20; i++) late.add(await status())
      expect([...late]).toEqual([503])
      // With a second replica, at most briefly unavailable.
      const inARow = async () => {
        for (let i = 0; i < 20; i++) if ((await get('/', {}, both)).status !== 200) return i
        return 20
      }
      await expect.poll(inARow).toBe(20)
      await link.fair()
      await expect.poll(status, { interval: 10 }).toBe(200)
      expect([...answers].sort()).toEqual(['200 null', '503 1'])
    })
  })
}
