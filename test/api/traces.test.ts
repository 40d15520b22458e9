import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { ask } from '../support/ask.ts'
import { failing } from '../support/failing.ts'
import { holding, named, type OwnReplica, replicaOn } from '../support/holding.ts'
import { until } from '../support/process.ts'
import { loadSdk, newTrace, type Trace } from '../support/spans.ts'
import {
  ADMIN_TOKEN,
  basic,
  bearer,
  type Customer,
  makeWorld,
  type Replica,
  SERVICE,
  type World,
} from '../support/world.ts'

/**
 * Tests the spans that an OpenTelemetry SDK receives. process-traces.test.ts tests loading one; logging.hazards.test.ts
 * tests that no secret is sent.
 */

const spans = loadSdk()

let world: World
let assay: Replica
let customer: Customer

beforeAll(async () => {
  world = await makeWorld()
  assay = await world.replica()
  customer = await assay.signUp()
})
afterAll(() => world.stop())

/** The spans that a request adds to its caller's trace. */
async function tracing(run: (headers: Trace['headers']) => Promise<{ status: number }>, status = 200) {
  const trace = newTrace()
  expect((await run(trace.headers)).status).toBe(status)
  return spans.told(trace)
}

const issueAt = ({ request }: OwnReplica, headers: Trace['headers'], body = {}) =>
  request('/issue', {
    method: 'POST',
    headers: { ...bearer(customer.apiKey), 'Content-Type': 'application/json', ...headers },
    body: JSON.stringify(body),
  })
const gateway = { Authorization: basic(SERVICE.id, SERVICE.secret) }

describe("a caller's trace continues", () => {
  test('in an issue, a session, its refresh, its end, and in each statement', async () => {
    const { access_token, refresh_token } = await customer.session()
    expect(await tracing(headers => customer.issue({}, headers))).toEqual([
      '^ > POST /issue > insertTokens',
      '^ > POST /issue',
    ])
    expect(await tracing(headers => customer.issue({ refresh: true }, headers))).toEqual([
      '^ > POST /issue > insertSessions',
      '^ > POST /issue',
    ])
    expect(await tracing(headers => assay.postForm('/refresh', { refresh_token }, headers))).toEqual([
      '^ > POST /refresh > refreshSessions',
      '^ > POST /refresh',
    ])
    const revoke = (token: string) => (headers: object) =>
      assay.postForm('/revoke', { token }, { ...bearer(customer.apiKey), ...headers })
    expect(await tracing(revoke(access_token))).toEqual([
      '^ > POST /revoke > insertRevokedTokens',
      '^ > POST /revoke',
    ])
    expect(await tracing(revoke(refresh_token))).toEqual([
      '^ > POST /revoke > endSessions',
      '^ > POST /revoke',
    ])
  })

  test('in an operator’s request; the path is recorded as declared', async () => {
    const list = (headers: object) =>
      assay.get(`/admin/customers/${customer.id}/sessions`, ADMIN_TOKEN, { ...headers })
    expect((await tracing(list)).at(-1)).toBe('^ > GET /admin/customers/:customer/sessions')
  })

  test('in verify and introspection when a customer is loaded, and not afterwards', async () => {
    const { access_token } = await customer.session()
    for (const first of [
      (replica: Replica) => (headers: object) => replica.get('/verify', access_token, { ...headers }),
      (replica: Replica) => (headers: object) =>
        replica.postForm('/introspect', { token: access_token }, { ...gateway, ...headers }),
    ]) {
      const replica = await world.replica()
      const [statement, request, ...more] = await tracing(first(replica))
      expect(statement).toMatch(/^\^ > \w+ \/(verify|introspect) > findRecords$/)
      expect(request).toMatch(/^\^ > \w+ \/(verify|introspect)$/)
      expect(more).toEqual([])
      expect(await tracing(first(replica))).toEqual([])
    }
  })

  test('in a verify that waits for the change feed', async () => {
    const { access_token } = await customer.session()
    const strict = (headers: object) =>
      assay.get('/verify', access_token, { ...headers, 'X-Consistency': 'strict' })
    const told = await tracing(strict)
    expect(told.at(-1)).toBe('^ > GET /verify')
    expect(new Set(told.slice(0, -1))).toEqual(new Set(['^ > GET /verify > poll']))
  })
})

describe('nothing is traced', () => {
  test('for answers from memory, probes and unknown paths', async () => {
    const { access_token } = await customer.session()
    const own = { ...bearer(customer.apiKey) }
    const form = { token: access_token }
    expect(await tracing(headers => assay.get('/verify', access_token, headers))).toEqual([])
    expect(await tracing(headers => assay.get('/verify', 'garbage', headers), 401)).toEqual([])
    expect(await tracing(headers => assay.postForm('/introspect', form, { ...own, ...headers }))).toEqual([])
    expect(await tracing(headers => assay.get('/introspect', access_token, headers))).toEqual([])
    expect(await tracing(headers => assay.get('/healthz', undefined, headers))).toEqual([])
    expect(await tracing(headers => assay.get('/readyz', undefined, headers))).toEqual([])
    expect(await tracing(headers => assay.get('/metrics', ADMIN_TOKEN, headers))).toEqual([])
    expect(await tracing(headers => assay.get('/nothing', undefined, headers), 404)).toEqual([])
  })

  test('in a trace that its caller does not record', async () => {
    const trace = newTrace(false)
    expect((await customer.issue({}, trace.headers)).status).toBe(200)
    expect(spans.of(trace)).toEqual([])
  })

  test('for writes after an answer', async () => {
    const link = holding(world.db)
    const replica = await replicaOn(world, link.db)
    const trace = newTrace()
    expect((await issueAt(replica, trace.headers)).status).toBe(200)
    await until('it is noted that the key was used', () => link.asked(named('touchApiKeys')) > 0)
    expect(spans.told(trace).at(-1)).toBe('^ > POST /issue')
  })
})

test('for a malformed traceparent', async () => {
  for (const traceparent of ['garbage', '00-0-0-01', `00-${'0'.repeat(32)}-${'0'.repeat(16)}-01`, '']) {
    const before = spans.ended.length
    expect((await customer.issue({}, { traceparent, tracestate: '=,=' })).status).toBe(200)
    const [statement, request] = spans.ended.slice(before)
    expect(request).toMatchObject({ name: 'POST /issue' })
    expect(request!.parentSpanContext).toBeUndefined()
    expect(statement!.parentSpanContext!.spanId).toBe(request!.spanContext().spanId)
  }
})

test('a span has the route, the status and the request id of the log, and nothing else', async () => {
  const trace = newTrace()
  const { headers } = await customer.issue({ subject: 'user-1' }, trace.headers)
  const [statement, request] = spans.of(trace)
  expect(request).toMatchObject({ kind: 1, status: { code: 0 }, events: [], links: [] })
  expect(request!.attributes).toEqual({
    'http.request.method': 'POST',
    'http.route': '/issue',
    'http.response.status_code': 200,
    'http.response.header.x-request-id': [headers.get('x-request-id')],
  })
  expect(statement).toMatchObject({ kind: 2, status: { code: 0 }, events: [], links: [] })
  expect(statement!.attributes).toEqual({
    'db.system.name': 'postgresql',
    'db.operation.name': 'insertTokens',
  })
  expect(milliseconds(statement!.duration)).toBeLessThan(milliseconds(request!.duration) + 2)
})

const milliseconds = ([seconds, nanoseconds]: readonly [number, number]) => seconds * 1e3 + nanoseconds / 1e6

test('an unknown HTTP method does not become a span name', async () => {
  const trace = newTrace()
  const headers = { ...bearer('garbage'), ...trace.headers, 'X-Consistency': 'strict' }
  await ask(assay.app, '/verify', { method: 'BREW', headers })
  const request = spans.of(trace).at(-1)!
  expect(request.name).toBe('HTTP /verify')
  expect(request.attributes['http.request.method']).toBe('_OTHER')
})

test('a shared statement appears in the trace of each act, with the number of acts', async () => {
  const link = holding(world.db)
  const replica = await replicaOn(world, link.db)
  const start = (trace: Trace) => issueAt(replica, trace.headers, { refresh: true })
  await start(newTrace())
  const shared = Array.from({ length: 5 }, () => newTrace())
  // This many statements may run at the same time.
  const alone = shared.splice(0, world.db.kind === 'embedded' ? 1 : 2)
  const holds = alone.map(() => link.hold(named('insertSessions')))
  const answers = alone.map(start)
  await Promise.all(holds.map(({ has }) => has))
  answers.push(...shared.map(start))
  await new Promise(resolve => setImmediate(resolve))
  for (const { release } of holds) release()
  for (const { status } of await Promise.all(answers)) expect(status).toBe(200)
  for (const trace of [...alone, ...shared]) {
    expect(spans.told(trace)).toEqual(['^ > POST /issue > insertSessions', '^ > POST /issue'])
    const size = spans.of(trace)[0]!.attributes['db.operation.batch.size']
    expect(size).toBe(alone.includes(trace) ? undefined : shared.length)
  }
})

describe('a failure', () => {
  test('of the client is not marked as an error', async () => {
    const trace = newTrace()
    const account = { email: customer.email, password: 'correct horse battery' }
    expect((await assay.postJson('/api/auth/signup', account, trace.headers)).status).toBe(409)
    const request = spans.of(trace).at(-1)!
    expect(request.attributes).toMatchObject({ 'http.response.status_code': 409 })
    expect(request.attributes).not.toHaveProperty('error.type')
    expect(request.status).toEqual({ code: 0 })
  })

  test('of the server is marked on the request and on the statement, without any message text', async () => {
    const failure = await failing(world.admin)
    const trace = newTrace()
    await failure.atRow(1)('raise')
    const { status } = await customer.issue({}, trace.headers)
    await failure.never()
    expect(status).toBe(500)
    const [statement, request] = spans.of(trace)
    expect(statement).toMatchObject({
      status: { code: 2 },
      attributes: { 'error.type': 'P0001' },
      events: [],
    })
    expect(request).toMatchObject({ status: { code: 2 }, attributes: { 'error.type': '500' }, events: [] })
    expect([statement!.status.message, request!.status.message]).toEqual([undefined, undefined])
  })
})
