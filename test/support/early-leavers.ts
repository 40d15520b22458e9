import { randomInt } from 'node:crypto'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { ask, issue, signUp } from './calls.ts'
import { atMost, DEPARTURES, sendAndHalfClose, sendAndLeave } from './leavers.ts'
import { logLines, type Running, type Settings, startAssay, stopAll, until } from './process.ts'
import { exchange } from './wire.ts'
import { ADMIN_TOKEN, basic, READER, SERVICE } from './world.ts'

/**
 * Clients that leave at each byte of the exchange with a server in another process. Every way to run the server uses
 * these tests.
 */

const TOGETHER = 48
/** How many steps an answer is divided into; a client leaves after each of them. */
const STEPS = 12

/** The exact bytes of a request and the status of its complete answer. */
interface Sent {
  bytes: string
  status: number
}

const head = (first: string, headers: Record<string, string>) =>
  `${[`${first} HTTP/1.1`, ...Object.entries({ Host: 'a', ...headers }).map(pair => pair.join(': '))].join('\r\n')}\r\n\r\n`

/** A request with `Connection: close`. */
const request = (first: string, headers: Record<string, string> = {}, body = '') =>
  head(first, {
    Connection: 'close',
    ...headers,
    ...(body && { 'Content-Length': String(Buffer.byteLength(body)) }),
  }) + body

const bearer = (token: string) => ({ Authorization: `Bearer ${token}` })
const asForm = { 'Content-Type': 'application/x-www-form-urlencoded' }
const asJson = { 'Content-Type': 'application/json' }

/** Replaced by a different address of the same length in each request: logins and signups per address are limited. */
const FROM = 'CLIENT-ADDRESS'
const from = { 'X-Forwarded-For': FROM }
const octet = () => randomInt(100, 256)
const fromAnywhere = (bytes: string) => bytes.replaceAll(FROM, `10.${octet()}.${octet()}.${octet()}`)

async function routesOf(at: Running): Promise<Record<string, Sent>> {
  const { email, apiKey, account } = await signUp(at)
  const { access_token, refresh_token } = await issue(at, apiKey, 'one')
  const revoked = await issue(at, apiKey, 'two')
  const server = { Authorization: basic(SERVICE.id, SERVICE.secret) }
  const logIn = JSON.stringify({ email, password: 'correct horse battery' })
  const form = (first: string, headers: Record<string, string>, fields: Record<string, string>) =>
    request(first, { ...headers, ...asForm }, new URLSearchParams(fields).toString())
  const json = (first: string, headers: Record<string, string>, body: object) =>
    request(first, { ...headers, ...asJson }, JSON.stringify(body))
  const get = (path: string, token?: string) =>
    request(`GET ${path}`, token === undefined ? {} : bearer(token))
  const chunked = `${head('POST /issue', { Connection: 'close', ...asJson, ...bearer(apiKey), 'Transfer-Encoding': 'chunked' })}8\r\n{"subjec\r\n8\r\nt":"two"\r\n1\r\n}\r\n0\r\n\r\n`
  const told = json('POST /issue', { ...bearer(apiKey), Expect: '100-continue' }, { subject: 'three' })
  const kept = head('GET /admin/audit/export', bearer(READER))
  return {
    'GET /admin/audit/export': { bytes: get('/admin/audit/export', READER), status: 200 },
    'GET /admin/audit/export of HTTP/1.0': {
      bytes: get('/admin/audit/export', READER).replace('HTTP/1.1', 'HTTP/1.0'),
      status: 200,
    },
    'HEAD /admin/audit/export': {
      bytes: get('/admin/audit/export', READER).replace('GET', 'HEAD'),
      status: 200,
    },
    'an export and another request, pipelined': {
      bytes: kept + get('/healthz'),
      status: 200,
    },
    'an export, then bytes that are no request': { bytes: `${kept}x\r\n\r\n`, status: 400 },
    'POST /api/auth/login': {
      bytes: request('POST /api/auth/login', { ...asJson, ...from }, logIn),
      status: 200,
    },
    'POST /api/auth/signup': {
      bytes: json('POST /api/auth/signup', from, { email: `${FROM}@a.example`, password: 'correct horse' }),
      status: 201,
    },
    'POST /issue': {
      bytes: json('POST /issue', bearer(apiKey), { subject: 'one', refresh: true }),
      status: 200,
    },
    'POST /issue in chunks': { bytes: chunked, status: 200 },
    'POST /issue that expects 100': { bytes: told, status: 100 },
    'POST /issue of a body that is too large': {
      bytes: json('POST /issue', bearer(apiKey), { subject: 'x'.repeat(17 * 1024) }).slice(0, 400),
      status: 413,
    },
    'POST /refresh': { bytes: form('POST /refresh', {}, { refresh_token }), status: 200 },
    'POST /revoke?wait=all': {
      bytes: form('POST /revoke?wait=all', bearer(apiKey), { token: revoked.access_token }),
      status: 200,
    },
    'POST /introspect': { bytes: form('POST /introspect', server, { token: 'a' }), status: 200 },
    'POST /introspect/batch': {
      bytes: json('POST /introspect/batch', server, { tokens: ['a', 'b'] }),
      status: 200,
    },
    'GET /api/sessions': { bytes: get('/api/sessions', account), status: 200 },
    'GET /api/audit': { bytes: get('/api/audit', account), status: 200 },
    'GET /admin/customers': { bytes: get('/admin/customers', READER), status: 200 },
    'GET /admin/audit': { bytes: get('/admin/audit', READER), status: 200 },
    'GET /metrics': { bytes: get('/metrics', READER), status: 200 },
    'GET /readyz': { bytes: get('/readyz'), status: 200 },
    'GET /docs/swagger-ui-bundle.js': { bytes: get('/docs/swagger-ui-bundle.js'), status: 200 },
    'GET /openapi.yaml': { bytes: get('/openapi.yaml'), status: 200 },
    'GET /verify that is strict': {
      bytes: request('GET /verify', { ...bearer(access_token), 'X-Consistency': 'strict' }),
      status: 200,
    },
  }
}

const NAMES = [
  'GET /admin/audit/export',
  'GET /admin/audit/export of HTTP/1.0',
  'HEAD /admin/audit/export',
  'an export and another request, pipelined',
  'an export, then bytes that are no request',
  'POST /api/auth/login',
  'POST /api/auth/signup',
  'POST /issue',
  'POST /issue in chunks',
  'POST /issue that expects 100',
  'POST /issue of a body that is too large',
  'POST /refresh',
  'POST /revoke?wait=all',
  'POST /introspect',
  'POST /introspect/batch',
  'GET /api/sessions',
  'GET /api/audit',
  'GET /admin/customers',
  'GET /admin/audit',
  'GET /metrics',
  'GET /readyz',
  'GET /docs/swagger-ui-bundle.js',
  'GET /openapi.yaml',
  'GET /verify that is strict',
]

/** `settings`: where the server's data is. `fill`: adds audit events, so that an export has several pages. */
export function earlyLeavers(settings: () => Settings, fill: (at: Running) => Promise<unknown>) {
  let assay: Running
  let routes: Record<string, Sent>
  let token: string

  beforeAll(async () => {
    assay = await startAssay({
      ADMIN_TOKEN,
      OPERATORS: `grafana:read:${READER}`,
      SERVICES: `${SERVICE.id}:introspect:${SERVICE.secret}`,
      TRUST_PROXY: '127.0.0.1',
      ...settings(),
    })
    token = (await signUp(assay)).account
    routes = await routesOf(assay)
    await fill(assay)
  })
  afterAll(stopAll)

  const lives = async () => {
    for (const path of ['/healthz', '/verify']) expect((await ask(assay, path, { token })).status).toBe(200)
    expect(assay.child.exitCode).toBe(null)
  }

  const noCallIsUnderWay = () =>
    until('no call is under way', async () => (await metric(assay, 'assay_database_calls')) === 0)

  test.each(NAMES)('%s: clients leave at each byte of the request', async name => {
    const { bytes } = routes[name]!
    const sent = fromAnywhere(bytes)
    const lengths = Array.from({ length: sent.length + 1 }, (_, k) => k)
    await atMost(
      TOGETHER,
      lengths.flatMap(k =>
        DEPARTURES.map(by => () => sendAndLeave(assay.port, fromAnywhere(bytes).slice(0, k), by)),
      ),
    )
    await lives()
  })

  test.each(NAMES)('%s: clients leave at each part of the answer', async name => {
    const { bytes, status } = routes[name]!
    const whole = await exchange(assay.port, fromAnywhere(bytes))
    expect(whole.slice(0, 12)).toMatch(new RegExp(`^HTTP/1.1 ${status}`))
    const parts = Array.from({ length: STEPS }, (_, step) => Math.ceil(((step + 1) * whole.length) / STEPS))
    await atMost(
      TOGETHER,
      [1, ...parts].flatMap(read =>
        DEPARTURES.map(by => () => sendAndLeave(assay.port, fromAnywhere(bytes), by, read)),
      ),
    )
    await lives()
  })

  /** Streamed answers are sent in pieces, and end when Node learns that the client has stopped sending. */
  const STREAMED = NAMES.filter(name => name.includes('export'))

  test.each(STREAMED)('%s: clients stop sending', async name => {
    await atMost(
      TOGETHER,
      Array.from({ length: TOGETHER }, () => () => sendAndHalfClose(assay.port, routes[name]!.bytes)),
    )
    await lives()
  })

  test.each(NAMES.filter(name => !STREAMED.includes(name)))(
    '%s: a client that stops sending gets a complete answer or none',
    async name => {
      const received = await sendAndHalfClose(assay.port, fromAnywhere(routes[name]!.bytes))
      expect(received.replace(CONTINUE, '')).toSatisfy(isWholeOrNothing)
      await lives()
    },
  )

  test('an export that the client abandons at once, with the bytes that once crashed the process', async () => {
    const example = `GET /admin/audit/export HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${READER}\r\n\r\nx\r\n\r\n`
    for (let time = 0; time < 5; time++) {
      expect(await exchange(assay.port, example)).toMatch(
        /^HTTP\/1\.1 400 Bad Request\r\nX-Request-Id: [\w-]+\r\nContent-Length: 0\r\nConnection: close\r\n\r\n$/,
      )
      await lives()
    }
  })

  test('a client that resets its connection before it is accepted has no effect, because it has no address', async () => {
    const { account } = await signUp(assay)
    const act = request('DELETE /api/sessions', bearer(account))
    process.kill(assay.pid, 'SIGSTOP')
    await atMost(
      8,
      Array.from({ length: 8 }, () => () => sendAndLeave(assay.port, act, 'reset')),
    )
    process.kill(assay.pid, 'SIGCONT')
    for (let time = 0; time < 5; time++) await lives()
    await noCallIsUnderWay()
    expect((await ask(assay, '/api/auth/me', { token: account })).status).toBe(200)
  })

  test('afterwards no call is running, only answers were logged, and a drain finishes at once', async () => {
    await noCallIsUnderWay()
    expect(logLines(assay).filter(({ level, msg }) => level >= 40 && !/new installation/.test(msg))).toEqual(
      [],
    )
    expect(assay.stderr()).not.toMatch(/Warning|Error/)
    const began = performance.now()
    expect(await assay.stop('SIGINT')).toBe(0)
    // A call that is still running would delay the end until the drain's timeout of 5 s.
    expect(performance.now() - began).toBeLessThan(5_000)
  })
}

const CONTINUE = 'HTTP/1.1 100 Continue\r\n\r\n'

/** True if the text is empty or a complete answer. */
function isWholeOrNothing(received: string): boolean {
  const [, head = '', body = ''] = /^(HTTP.*?\r\n)\r\n(.*)$/s.exec(received) ?? []
  const length = Number(/^Content-Length: (\d+)\r$/im.exec(head)?.[1] ?? Number.NaN)
  return received === '' || body.length === length
}

async function metric(at: Running, name: string): Promise<number> {
  const response = await fetch(`${at.url}/metrics`, { headers: bearer(READER) })
  return Number(new RegExp(`^${name} (\\S+)$`, 'm').exec(await response.text())?.[1])
}
