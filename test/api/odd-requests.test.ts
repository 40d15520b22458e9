import { afterAll, beforeAll, expect, test } from 'vitest'
import { exchange, parseAnswer } from '../support/wire.ts'
import { bearer, makeWorld, READER, type Replica, type World } from '../support/world.ts'

/** Requests that @hono/node-server would refuse itself. They get a request id, a log line and a count like any other. */

let world: World
let assay: Replica
let port: number

beforeAll(async () => {
  world = await makeWorld()
  assay = await world.replica()
})
afterAll(() => world.stop())

const ODD: Record<string, [request: string, status: number, route: string]> = {
  'HTTP/1.0 without Host': ['GET /healthz HTTP/1.0', 200, '/healthz'],
  'an empty Host': ['GET /healthz HTTP/1.1\r\nHost:', 200, '/healthz'],
  'a Host with a space': ['GET /healthz HTTP/1.1\r\nHost: a b', 200, '/healthz'],
  'a Host that is no host': ['GET /healthz HTTP/1.1\r\nHost: [::1', 200, '/healthz'],
  'a Host beyond ASCII': ['GET /healthz HTTP/1.1\r\nHost: \xe4.example', 200, '/healthz'],
  'a port beyond 65535': ['GET /healthz HTTP/1.1\r\nHost: a:99999999', 200, '/healthz'],
  'OPTIONS *': ['OPTIONS * HTTP/1.1\r\nHost: a', 404, 'none'],
  'a backslash in the path': ['GET /healthz\\x HTTP/1.1\r\nHost: a', 404, 'none'],
  'a dot segment': ['GET /x/../healthz HTTP/1.1\r\nHost: a', 404, 'none'],
  'an encoded path': ['GET /%68ealthz HTTP/1.1\r\nHost: a', 404, 'none'],
  'a whole URL': ['GET http://a.example/healthz HTTP/1.1\r\nHost: a', 200, '/healthz'],
  'a whole URL with an odd host': ['GET http://[/healthz HTTP/1.1\r\nHost: a', 200, '/healthz'],
  'an unknown method': ['PURGE /healthz HTTP/1.1\r\nHost: a', 405, 'none'],
}

test.each(Object.entries(ODD))(
  '%s is answered, logged and counted',
  async (name, [request, status, route]) => {
    port = (await assay.serve()).port
    const requestId = `odd-${Object.keys(ODD).indexOf(name)}`
    const counted = () => countOf(route, status)
    const before = await counted()
    const answer = parseAnswer(
      await exchange(port, `${request}\r\nX-Request-Id: ${requestId}\r\nConnection: close\r\n\r\n`),
    )
    expect([answer.status, answer.headers['x-request-id']]).toEqual([status, requestId])
    const logged = assay.lines.map(line => JSON.parse(line)).filter(line => line.requestId === requestId)
    expect(logged).toMatchObject([{ msg: 'answered', route, status }])
    expect(await counted()).toBe(before + 1)
  },
)

async function countOf(route: string, status: number): Promise<number> {
  const { text } = await assay.get('/metrics', READER)
  const lines = text.split('\n').filter(line => line.startsWith('assay_requests_total'))
  const counts = lines.filter(
    line => line.includes(`route="${route}"`) && line.includes(`status="${status}"`),
  )
  return counts.reduce((sum, line) => sum + Number(line.split(' ').at(-1)), 0)
}

test.each([
  ['two hosts', 'GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b', 400],
  ['two hosts at /verify', 'GET /verify HTTP/1.1\r\nHost: a\r\nHost: a', 400],
  ['a header without a colon', 'GET /healthz HTTP/1.1\r\nHost: a\r\nnonsense', 400],
  ['too large a header', `GET /healthz HTTP/1.1\r\nHost: a\r\nX: ${'x'.repeat(66_000)}`, 431],
  ['an expectation that nobody knows', 'GET /healthz HTTP/1.1\r\nHost: a\r\nExpect: x', 200],
  ['the same at /verify', 'GET /verify HTTP/1.1\r\nHost: a\r\nExpect: x', 401],
])('%s has one answer with a request id', async (_, request, status) => {
  port = (await assay.serve()).port
  const answer = parseAnswer(await exchange(port, `${request}\r\nConnection: close\r\n\r\n`))
  expect(answer.status).toBe(status)
  expect(answer.headers['x-request-id']).toMatch(/^[\w-]{36}$/)
})

test('unparsable requests are all counted, and one per second is logged', async () => {
  port = (await assay.serve()).port
  assay.clock.skip(1_000)
  const unread = () => assay.lines.map(line => JSON.parse(line)).filter(line => line.reason !== undefined)
  const [counted, logged] = [await countOf('unreadable', 400), unread().length]
  const send = async (request: string) =>
    parseAnswer(await exchange(port, `${request}\r\nConnection: close\r\n\r\n`)).headers['x-request-id']
  const twoHosts = await send('GET /verify?token=s3cret HTTP/1.1\r\nHost: a\r\nHost: b')
  for (let i = 0; i < 4; i++) await send('GET /healthz HTTP/1.1\r\nHost: a\r\ns3cret')
  assay.clock.skip(1_000)
  const last = await send('GET /healthz HTTP/1.1\r\nHost: a\r\ns3cret')
  expect(unread().slice(logged)).toMatchObject([
    { requestId: twoHosts, status: 400, reason: 'two Host headers' },
    { requestId: last, status: 400, reason: expect.stringMatching(/^HPE_/), unlogged: 4 },
  ])
  expect(await countOf('unreadable', 400)).toBe(counted + 6)
  expect(assay.lines.join('')).not.toContain('s3cret')
})

test('the app also answers without a socket, under app.request()', async () => {
  const { app } = assay
  const status = async (path: string, init?: RequestInit) => (await app.request(path, init)).status
  expect(await status('/healthz')).toBe(200)
  expect(await status('/nothing')).toBe(404)
  expect(await status('/x/%2e%2e/healthz')).toBe(200) // A URL object contains no dot segments.
  expect(await status('/verify')).toBe(401)
  expect(await status('/verify/x?y=z')).toBe(401)
  expect(await status('/metrics', { headers: bearer(READER) })).toBe(200)
  expect(await status('/introspect', { method: 'DELETE' })).toBe(405)
})
