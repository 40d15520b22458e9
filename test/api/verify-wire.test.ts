import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { ask, dial, exchange, lines, parseAnswer } from '../support/wire.ts'
import { bearer, makeWorld, type Replica, type World } from '../support/world.ts'

/** /verify at the byte level, as a proxy sees it on the socket. */

let world: World
let assay: Replica
let token: string
let port: number

beforeAll(async () => {
  world = await makeWorld()
  assay = await world.replica({ TOKEN_COOKIE: 'session' })
  token = (await (await assay.signUp()).session()).access_token
})
beforeEach(async () => {
  port = (await assay.serve()).port
})
afterAll(() => world.stop())

// Methods that fetch sends, that need a raw socket, and others that node:http accepts.
const METHODS = 'GET HEAD POST PUT PATCH DELETE OPTIONS TRACE PROPFIND PURGE QUERY M-SEARCH REPORT'.split(' ')

const IDENTITY = ['customer', 'subject', 'scope', 'audience', 'session', 'token-id', 'expires', 'claims']
const ALWAYS = ['cache-control', 'connection', 'content-length', 'date', 'x-assay-age', 'x-request-id']
const NAMES = {
  200: [...IDENTITY.map(name => `x-auth-${name}`), ...ALWAYS].sort(),
  401: ['www-authenticate', ...ALWAYS].sort(),
  403: ['www-authenticate', ...ALWAYS].sort(),
}

/** Exactly these headers, `Content-Length: 0` and no byte after them. */
async function expectAnswer(status: keyof typeof NAMES, first: string, headers: Record<string, string>) {
  const answer = await ask(port, first, headers)
  expect(answer.status).toBe(status)
  expect(answer.headers['content-length']).toBe('0')
  expect(answer.body).toBe('')
  expect(Object.keys(answer.headers).sort()).toEqual(NAMES[status])
  return answer
}

test.each(METHODS)('%s is answered with a status, headers, Content-Length: 0 and no body', async method => {
  for (const path of ['/verify', '/verify/orders/42?x=1']) {
    await expectAnswer(200, `${method} ${path}`, bearer(token))
    await expectAnswer(401, `${method} ${path}`, {})
    await expectAnswer(401, `${method} ${path}`, bearer('garbage'))
    await expectAnswer(403, `${method} ${path}`, { ...bearer(token), 'X-Assay-Require': 'scope=admin' })
  }
})

test('a body that never comes is not waited for', async () => {
  for (const length of ['100', '100000000000'])
    await expectAnswer(200, 'POST /verify', { ...bearer(token), 'Content-Length': length })
  await expectAnswer(200, 'PUT /verify/x', { ...bearer(token), 'Transfer-Encoding': 'chunked' })
  await expectAnswer(401, 'POST /verify', { 'Content-Length': '100' })
})

test('an endless body is not read: the answer is sent, then the connection ends', async () => {
  const wire = await dial(port)
  const headers = { ...bearer(token), 'Transfer-Encoding': 'chunked', Connection: 'keep-alive' }
  wire.write(lines('POST /verify/upload', headers))
  wire.write(`4000\r\n${'x'.repeat(0x4000)}\r\n`)
  expect((await wire.head()).status).toBe(200)
  expect(parseAnswer(await wire.rest()).body).toBe('')
})

test('no header is dropped, however many precede it', async () => {
  const many = Object.fromEntries(Array.from({ length: 1_500 }, (_, i) => [`B${i}`, '1']))
  await expectAnswer(200, 'GET /verify/x', { ...bearer(token), ...many })
  await expectAnswer(403, 'GET /verify/x', { ...bearer(token), ...many, 'X-Assay-Require': 'scope=admin' })
  const second = lines('GET /verify', { ...bearer(token), ...many }).replace(
    '\r\n\r\n',
    '\r\nAuthorization: Bearer other\r\n\r\n',
  )
  const wire = await dial(port)
  wire.write(second)
  expect((await wire.head()).status).toBe(401)
  wire.destroy()
})

test('a connection is kept alive, and there is no byte between two answers', async () => {
  const wire = await dial(port)
  const kept = { Connection: 'keep-alive' }
  wire.write(lines('GET /verify', { ...bearer(token), ...kept }))
  wire.write(`${lines('POST /verify', { ...kept, 'Content-Length': '5' })}hello`)
  wire.write(lines('GET /verify', bearer(token)))
  const answers = (await wire.rest()).split('\r\n\r\n')
  expect(answers.pop()).toBe('')
  expect(answers.map(head => head.slice(0, 12))).toEqual(['HTTP/1.1 200', 'HTTP/1.1 401', 'HTTP/1.1 200'])
  expect(answers[0]).toContain('Keep-Alive: timeout=75')
})

describe('the path that a proxy appends', () => {
  // Nothing resolves the path that a client sends: neither Assay nor, perhaps, the backend.
  const CLIMBING = [
    '/verify/../healthz',
    '/verify/%2e%2e/healthz',
    '/verify/admin/.%2E/../healthz',
    '/verify/../introspect',
    '/verify/../openapi.yaml',
    '/verify/../.well-known/openid-configuration',
    '/verify/..',
    '/verify/../verify/../readyz?scope=read',
  ]

  test.each(CLIMBING)('%s does not leave /verify', async path => {
    await expectAnswer(401, `GET ${path}`, {})
    await expectAnswer(200, `GET ${path}`, bearer(token))
    await expectAnswer(403, `GET ${path}`, { ...bearer(token), 'X-Assay-Require': 'scope=admin' })
  })

  test("cannot return to a path where the query is the proxy's", async () => {
    await expectAnswer(200, 'GET /verify/../verify?scope=admin', bearer(token))
    await expectAnswer(200, 'GET /verify/.?scope=admin', bearer(token))
  })

  test('is never empty: a query after only slashes holds the proxy’s rules', async () => {
    for (const path of ['/verify/', '/verify//', 'http://assay.test/verify/', 'http://assay.test/verify//']) {
      await expectAnswer(403, `GET ${path}?scope=nope`, bearer(token))
      await expectAnswer(403, `GET ${path}?scpoe=read`, bearer(token))
      await expectAnswer(200, `GET ${path}?scope=read`, bearer(token))
      await expectAnswer(200, `GET ${path}?`, bearer(token))
      await expectAnswer(200, `GET ${path}`, bearer(token))
      await expectAnswer(401, `GET ${path}`, {})
    }
  })

  test.each(['/verify/%zz', '/verify/%00', '/verify//', '/verify/;/..;/', '/verify/a%5cb', '/verify/~!$*()'])(
    '%s is accepted like any other path',
    async path => {
      await expectAnswer(200, `GET ${path}`, bearer(token))
      await expectAnswer(401, `GET ${path}`, {})
    },
  )

  test('is never accepted without a token, however it is spelled', async () => {
    const spellings = [
      '/verify/..\\healthz',
      '//verify',
      '/verify\\..\\healthz',
      '/VERIFY',
      '/./healthz/../verify',
    ]
    for (const path of [...spellings, 'http://127.0.0.1/verify/../healthz', '/verify#/../healthz']) {
      const answer = parseAnswer(await exchange(port, lines(`GET ${path}`)))
      expect([400, 401, 404]).toContain(answer.status)
    }
  })
})

test("a client's hop-by-hop and conditional headers have no effect", async () => {
  const odd = [
    { 'If-None-Match': '*' },
    { 'If-Modified-Since': 'Sun, 06 Nov 2094 08:49:37 GMT' },
    { Range: 'bytes=0-0' },
    { Upgrade: 'websocket', 'Sec-WebSocket-Key': 'dGhlIHNhbXBsZSBub25jZQ==' },
    { 'Accept-Encoding': 'gzip, br' },
    { AuditContext: 'https://evil.example' },
    { TE: 'trailers' },
    { Accept: 'application/json' },
  ]
  for (const headers of odd) {
    await expectAnswer(200, 'GET /verify', { ...bearer(token), ...headers })
    await expectAnswer(401, 'GET /verify', headers)
  }
})

test('two Authorization headers are refused', async () => {
  for (const [one, two] of [
    ['garbage', token],
    [token, 'garbage'],
  ]) {
    const request = lines('GET /verify').replace(
      '\r\n\r\n',
      `\r\nAuthorization: Bearer ${one}\r\nAuthorization: Bearer ${two}\r\n\r\n`,
    )
    expect(parseAnswer(await exchange(port, request)).status).toBe(401)
  }
})

test('of two cookies with the name the valid one counts, and only as it was sent', async () => {
  for (const forged of [
    '',
    'forged',
    'forged\\.x.y',
    '"forged',
    '\xe9',
    `"${token}"`,
    `%65${token.slice(1)}`,
  ]) {
    await expectAnswer(401, 'GET /verify', { Cookie: `session=${forged}` })
    await expectAnswer(200, 'GET /verify', { Cookie: `session=${forged}; session=${token}` })
    await expectAnswer(200, 'GET /verify', { Cookie: `other=x; session=${token}; session=${forged}` })
  }
  for (const none of [`session =${token}`, `a=session=${token}`, `xsession=${token}`, `a b session=${token}`])
    await expectAnswer(401, 'GET /verify', { Cookie: none })
  await expectAnswer(200, 'GET /verify', { Cookie: `xsession=x; a=session=y;\t session=${token}` })
})

test('a cookie on the wire is read like the header, and the header takes precedence', async () => {
  await expectAnswer(200, 'GET /verify', { Cookie: `session=${token}` })
  await expectAnswer(401, 'GET /verify', { Cookie: `session=${token}`, ...bearer('garbage') })
})
