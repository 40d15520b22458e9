import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { forger } from '../support/forge.ts'
import { trials } from '../support/trials.ts'
import { ask, dial, lines, parseAnswer } from '../support/wire.ts'
import { bearer, type Customer, makeWorld, type Replica, type World } from '../support/world.ts'

/** Input from the network and output to it, byte for byte. */

let world: World
let assay: Replica
let customer: Customer
let token: string
let port: number

beforeAll(async () => {
  world = await makeWorld()
  assay = await world.replica()
  customer = await assay.signUp()
  token = (await customer.session()).access_token
})
beforeEach(async () => {
  port = (await assay.serve()).port
})
afterAll(() => world.stop())

describe('H40 no value in a token becomes a separate header (CVE-2026-50630)', () => {
  const LINES = ['\r\n', '\n', '\r', '\0', '\u0085', '\u2028', '\x0b']
  const evil = LINES.map(end => `a${end}X-Auth-Scope: admin${end}${end}HTTP/1.1 200 OK`)

  test.each(['subject', 'scope', 'audience'])(
    'H40 CR, LF, NUL and the like in %s are refused',
    async name => {
      // A line separator is not a control character: in a subject it is encoded, as below.
      for (const value of evil.filter(each => name !== 'subject' || !each.includes('\u2028'))) {
        const { status, json } = await customer.issue({ [name]: value })
        expect([status, json.error]).toEqual([400, name === 'scope' ? 'invalid_scope' : 'invalid_request'])
      }
      const many = await customer.issue({ audience: ['fine', evil[0]] })
      expect(many.status).toBe(400)
    },
  )

  test.each([20_000, 10_000, 3_000])(
    'H40 a value of %i bytes is refused when the token is issued',
    async length => {
      for (const name of ['subject', 'scope', 'audience']) {
        const { status } = await customer.issue({ [name]: 'x'.repeat(length) })
        expect([400, 413]).toContain(status)
      }
      expect([400, 413]).toContain((await customer.issue({ claims: { a: 'x'.repeat(length) } })).status)
    },
  )

  const KNOWN =
    /^(HTTP\/1\.1 \d{3} [A-Za-z ]+|(X-Auth-[A-Za-z-]+|X-Assay-Age|X-Request-Id|WWW-Authenticate|Content-Length|Cache-Control|Date|Connection): [\x21-\x7e ]*)$/

  test.each([
    ['the subject', { subject: '名 \u2028%0d%0aX-Auth-Scope: admin' }],
    [
      'the claims',
      { claims: Object.fromEntries(LINES.map((end, i) => [`${end}X-Evil-${i}: 1`, `a${end}b: c`])) },
    ],
    ['the audience', { audience: ['%0d%0aX-Evil:1', 'a:b'] }],
  ])('H40 for %s the answer has eight headers of visible ASCII', async (_, body) => {
    const { access_token } = await customer.session(body)
    const answer = await ask(port, 'GET /verify', bearer(access_token))
    expect(answer.status).toBe(200)
    for (const line of answer.head.split('\r\n')) expect(line).toMatch(KNOWN)
    expect(answer.headers['x-auth-scope']).toBe('read write')
    expect(answer.headers['x-auth-customer']).toBe(customer.id)
    expect(Object.keys(answer.headers).filter(name => name.startsWith('x-auth-'))).toHaveLength(8)
    expect(Object.keys(answer.headers)).not.toContain('x-evil')
  })

  const SIGNED: object[] = [
    ...evil.flatMap(value => [{ sub: value }, { scope: value }, { jti: value }, { sid: value, gen: 1 }]),
    ...evil.flatMap(value => [{ aud: value }, { aud: ['a', value] }, { claims: { [value]: value } }]),
    ...['名', 'é', '\ud800', '\udc00a'].flatMap(value => [{ sub: value }, { scope: value }, { jti: value }]),
    ...['名', '\ud800'].flatMap(value => [{ sid: value, gen: 1 }, { aud: value }, { claims: { a: value } }]),
  ]

  test('H40 CR, LF, NUL and the like signed with a stolen secret are refused or encoded, never an error', async () => {
    const real = await forger(assay, customer, 'access')
    const wrong: string[] = []
    for (const claims of SIGNED) {
      const answer = await ask(port, 'GET /verify', bearer(real.withClaims(claims)))
      const fine = answer.head.split('\r\n').every(line => KNOWN.test(line))
      if (![200, 401].includes(answer.status) || !fine || answer.body !== '')
        wrong.push(`${answer.status}: ${JSON.stringify(claims)}`)
    }
    expect(wrong).toEqual([])
  })

  test('H40 request ids, paths and rules are validated before they are repeated', async () => {
    const odd = { 'X-Request-Id': 'a\tb', 'X-Assay-Require': 'scope=%22%0d%0aX-Evil:%201' }
    for (const headers of [odd, { ...odd, ...bearer(token) }])
      for (const first of [
        'GET /verify/%0d%0aX-Evil:%201',
        'GET /%0d%0aX-Evil:%201',
        'GET /verify?a=%0d%0aX-Evil:1',
      ])
        expect((await ask(port, first, headers)).head).not.toMatch(/evil|a\tb/i)
    const { head } = await ask(port, 'GET /verify?scope=admin', bearer(token))
    expect(head).toContain('scope="admin"')
    expect((await ask(port, 'GET /verify?scope=a%22b', bearer(token))).head).not.toContain('a"b')
  })
})

describe('H41 headers of proxies and clients that describe the request decide nothing (CVE-2026-34457, CVE-2026-76835)', () => {
  const SAID: Record<string, string>[] = [
    { 'X-Forwarded-For': '127.0.0.1' },
    { 'X-Forwarded-For': '10.0.0.1, 127.0.0.1', 'X-Real-IP': '127.0.0.1', Forwarded: 'for=127.0.0.1' },
    { 'X-Forwarded-Proto': 'https', 'X-Forwarded-Host': 'assay.test', 'X-Forwarded-Port': '443' },
    { 'X-Forwarded-Uri': '/healthz', 'X-Forwarded-Method': 'OPTIONS' },
    { 'X-Original-URL': '/healthz', 'X-Rewrite-URL': '/healthz', 'X-Original-Uri': '/public' },
    { 'X-HTTP-Method-Override': 'OPTIONS', 'X-Method-Override': 'HEAD' },
    { 'User-Agent': 'kube-probe/1.31' },
    { 'User-Agent': 'GoogleHC/1.0' },
    { 'X-Auth-Subject': 'admin', 'X-Auth-Scope': 'admin', 'X-Auth-Customer': 'aaaaaaaaaaaaaaaa' },
    { 'X-Forwarded-User': 'admin', 'Remote-User': 'admin', 'X-Auth-Request-User': 'admin' },
    { 'X-Amzn-Oidc-Data': 'x', 'Cf-Access-Jwt-Assertion': 'x', 'X-Goog-Iap-Jwt-Assertion': 'x' },
    { 'X-Assay-Allow': '1', 'X-Forwarded-Authorization': 'Bearer x', 'X-Access-Token': 'x' },
    { Host: 'localhost' },
    { AuditContext: 'null', 'Access-Control-Request-Method': 'GET' },
  ]

  /** The answer without the parts that differ each time. */
  const answered = async (first: string, headers: Record<string, string>) => {
    const { status, headers: found, body } = await ask(port, first, headers)
    const { date: _, 'x-request-id': __, 'x-assay-age': ___, ...rest } = found
    return { status, rest, body }
  }

  test.each(['GET /verify', 'OPTIONS /verify', 'GET /verify/orders', 'GET /verify?scope=admin'])(
    'H41 %s gets the same answer with each of these headers and with none',
    async first => {
      for (const credentials of [{}, bearer('garbage'), bearer(token)]) {
        const plain = await answered(first, credentials)
        for (const said of SAID) expect(await answered(first, { ...credentials, ...said })).toEqual(plain)
      }
      expect((await answered(first, {})).status).toBe(401)
    },
  )
})

describe('H44 the size of a body is measured as it arrives (CVE-2026-44456)', () => {
  const FORM = 'application/x-www-form-urlencoded'
  const ENDPOINTS: [path: string, type: string, limit: number][] = [
    ['/issue', 'application/json', 16 * 1024],
    ['/token', FORM, 16 * 1024],
    ['/refresh', FORM, 16 * 1024],
    ['/api/auth/login', 'application/json', 16 * 1024],
    ['/introspect', FORM, 16 * 1024],
    ['/revoke', FORM, 16 * 1024],
    ['/introspect/batch', 'application/json', 1024 * 1024],
  ]

  const begin = async (path: string, type: string, headers: Record<string, string>) => {
    const wire = await dial(port)
    const all = { ...bearer(customer.apiKey), 'Content-Type': type, Connection: 'keep-alive', ...headers }
    wire.write(lines(`POST ${path}`, all))
    return wire
  }

  const chunk = `1000\r\n${'x'.repeat(0x1000)}\r\n`
  const all = (run: (path: string, type: string, limit: number) => Promise<void>) =>
    Promise.all(ENDPOINTS.map(endpoint => run(...endpoint)))

  test('H44 endless chunks are 413 once the limit is passed, and then the connection ends', () =>
    all(async (path, type, limit) => {
      const wire = await begin(path, type, { 'Transfer-Encoding': 'chunked' })
      for (let sent = 0; sent < limit; sent += 0x1000) wire.write(chunk)
      wire.write('1\r\nx\r\n')
      expect((await wire.head()).status, path).toBe(413)
      // The rest is neither read nor waited for.
      await wire.closed
      expect(parseAnswer(wire.received()).body).toContain('"error":"invalid_request"')
    }))

  test('H44 a Content-Length over the limit is 413 before any of the body arrives', () =>
    all(async (path, type, limit) => {
      const wire = await begin(path, type, { 'Content-Length': String(limit + 1) })
      expect((await wire.head()).status, path).toBe(413)
      await wire.closed
    }))

  test('H44 a chunked body of exactly the limit is read and answered', () =>
    all(async (path, type, limit) => {
      const wire = await begin(path, type, { 'Transfer-Encoding': 'chunked', Connection: 'close' })
      for (let sent = 0; sent < limit; sent += 0x1000) wire.write(chunk)
      wire.write('0\r\n\r\n')
      expect(parseAnswer(await wire.rest()).status, path).toBe(400)
    }))

  test('H44 a Content-Length with chunked encoding, two lengths, or an invalid length is refused', async () => {
    const both = { 'Content-Length': '5', 'Transfer-Encoding': 'chunked' }
    const framings = [
      both,
      { 'Content-Length': '5, 6' },
      { 'Content-Length': '-1' },
      { 'Content-Length': '5x' },
    ]
    const unknown = [{ 'Transfer-Encoding': 'gzip' }, { 'Transfer-Encoding': 'chunked, identity' }]
    for (const framing of [...framings, ...unknown]) {
      const wire = await begin('/token', FORM, { ...framing, Connection: 'close' } as Record<string, string>)
      wire.write('0\r\n\r\nGET /verify HTTP/1.1\r\nHost: a\r\n\r\n')
      const received = await wire.rest()
      expect(received.match(/HTTP\/1\.1 \d{3}/g)).toEqual(['HTTP/1.1 400'])
    }
  })

  test('H44 a header named __proto__ is a header like any other (CVE-2026-21710)', async () => {
    for (const name of ['__proto__', 'constructor', 'prototype', 'hasOwnProperty', 'toString']) {
      expect((await ask(port, 'GET /verify', { ...bearer(token), [name]: 'x' })).status).toBe(200)
      expect((await ask(port, 'GET /api/auth/me', { [name]: token })).status).toBe(401)
    }
    const raw = lines('GET /verify').replace('\r\n\r\n', '\r\n__proto__: x\r\n__proto__: y\r\n\r\n')
    const wire = await dial(port)
    wire.write(raw)
    expect((await wire.head()).status).toBe(401)
    wire.destroy()
  })
})

const POISONED = trials(100_000)

test(`H13 after ${POISONED} poisoned requests Object.prototype is unchanged (CVE-2026-56763)`, async () => {
  const names = () => Object.getOwnPropertyNames(Object.prototype).sort()
  const before = names()
  const poison = ['__proto__', 'constructor', 'prototype'].flatMap(name => [
    `{"${name}":{"polluted":true}}`,
    `{"subject":"x","claims":{"a":[{"${name}":{"polluted":true}}]}}`,
    `{"claims":{"\\u005f_proto__":{"polluted":true}},"${name}":1}`,
  ])
  const post = (path: string, body: string, type = 'application/json') =>
    assay.request(path, {
      method: 'POST',
      headers: { ...bearer(customer.apiKey), 'Content-Type': type },
      body,
    })
  for (let i = 0; i < POISONED / 4; i++) {
    const body = poison[i % poison.length]!
    expect((await post('/issue', body)).json.error).toBe('invalid_request')
    expect((await post('/introspect/batch', body)).json.error).toBe('invalid_request')
    expect((await post('/api/auth/login', body)).json.error).toBe('invalid_request')
    const form = '__proto__[polluted]=1&constructor.prototype.polluted=1&__proto__=x&token=y'
    expect((await post('/introspect', form, 'application/x-www-form-urlencoded')).status).toBe(200)
  }
  expect(names()).toEqual(before)
  expect(({} as Record<string, unknown>).polluted).toBeUndefined()
  expect((await assay.verify(token)).status).toBe(200)
})
