import { once } from 'node:events'
import { connect, type Server } from 'node:net'
import { Readable } from 'node:stream'
import { promisify } from 'node:util'
import { Hono } from 'hono'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import type { AppEnv } from '../../server/http/env.ts'
import { getPath } from '../../server/http/target.ts'
import { orderAll } from '../support/audit-order.ts'
import { holding, LOADER, named, replicaOn } from '../support/holding.ts'
import { DEPARTURES, type Departure } from '../support/leavers.ts'
import { until } from '../support/process.ts'
import { ask, exchange, lines } from '../support/wire.ts'
import { bearer, makeWorld, READER, type World } from '../support/world.ts'

/** Clients that disconnect while their answer is being made or sent. */

const PAGES = 8
const EVENTS = PAGES * 1_000
/** The statement that reads a page of the audit. */
const PAGE = named('listOrderedEvents')

let world: World
let database: ReturnType<typeof holding>
let assay: Awaited<ReturnType<World['replica']>>
let served: Awaited<ReturnType<typeof assay.serve>>

beforeAll(async () => {
  world = await makeWorld()
  database = holding(world.db)
  assay = await world.replica({}, { link: database.db })
  await world.admin.query(
    `insert into assay.audit_events (at, customer_id, type, actor, user_agent)
    select assay.now() - n * interval '1 second', null, 'token.issued', 'api_key:x', repeat('x', 256)
    from generate_series(1, ${EVENTS}) as n`,
  )
  await orderAll(world)
})
beforeEach(async () => {
  served = await assay.serve()
  assay.lines.length = 0
})
afterAll(() => world.stop())

const EXPORT = lines('GET /admin/audit/export', bearer(READER))
const warnings = () => assay.lines.map(line => JSON.parse(line)).filter(({ level }) => level >= 40)

/** The access log lines of a route. */
const answered = (route: string) =>
  assay.lines.map(line => JSON.parse(line)).filter(line => line.msg === 'answered' && line.route === route)

const allHaveLeft = (server: Server = served.server) =>
  until(
    'no connection is left',
    async () => (await promisify<number>(done => server.getConnections(done))()) === 0,
  )

/** A client that sends these bytes and disconnects when `leave` is called. */
async function client(port: number, bytes: string) {
  const socket = connect(port, '127.0.0.1')
  socket.on('error', () => {})
  await once(socket, 'connect')
  socket.write(bytes)
  return { leave: (by: Departure) => (by === 'fin' ? socket.destroy() : socket.resetAndDestroy()) }
}

describe.each(DEPARTURES)('a client that disconnects (%s)', by => {
  test('while the first page of its export is read: the reply is dropped, and no second page is read', async () => {
    const held = database.hold(PAGE)
    const before = database.asked(PAGE)
    const leaver = await client(served.port, EXPORT)
    await held.has
    leaver.leave(by)
    await allHaveLeft()
    held.release()
    for (let asked = 0; asked < 5; asked++) expect((await ask(served.port, 'GET /healthz')).status).toBe(200)
    expect(database.asked(PAGE) - before).toBe(1)
    expect(warnings()).toEqual([])
    expect(answered('/admin/audit/export')).toMatchObject([{ status: 200 }])
  })

  test('while a later page of its export is read: no further page is read, and nothing is logged', async () => {
    const before = database.asked(PAGE)
    const first = database.hold(PAGE)
    const leaver = await client(served.port, EXPORT)
    await first.has
    const second = database.hold(PAGE)
    first.release()
    await second.has
    leaver.leave(by)
    await allHaveLeft()
    second.release()
    for (let asked = 0; asked < 5; asked++) expect((await ask(served.port, 'GET /healthz')).status).toBe(200)
    expect(database.asked(PAGE) - before).toBe(2)
    expect(warnings()).toEqual([])
  })

  test('while it reads nothing, so that the export waits for it: no further page is read', async () => {
    const before = database.asked(PAGE)
    const stalled = await Promise.all(Array.from({ length: 4 }, () => client(served.port, EXPORT)))
    await until('pages are read', () => database.asked(PAGE) - before >= 4)
    for (const leaver of stalled) leaver.leave(by)
    await allHaveLeft()
    await until('no call is under way', () => world.db.usage().calls === 0)
    const read = database.asked(PAGE)
    for (let asked = 0; asked < 5; asked++) expect((await ask(served.port, 'GET /healthz')).status).toBe(200)
    expect(database.asked(PAGE)).toBe(read)
    expect(warnings()).toEqual([])
  })

  test('after pipelining five exports: all of them end', async () => {
    const told: Error[] = []
    const tell = (warning: Error) => told.push(warning)
    process.on('warning', tell)
    const kept = EXPORT.replace('close', 'keep-alive')
    const leaver = await client(served.port, kept.repeat(5))
    await until('pages are read', () => database.asked(PAGE) > 0)
    leaver.leave(by)
    await allHaveLeft()
    await until('no call is under way', () => world.db.usage().calls === 0)
    const read = database.asked(PAGE)
    for (let asked = 0; asked < 5; asked++) expect((await ask(served.port, 'GET /healthz')).status).toBe(200)
    process.off('warning', tell)
    expect(database.asked(PAGE)).toBe(read)
    expect([...warnings(), ...told]).toEqual([])
  })

  test('before its act is done: the audit still has its address', async () => {
    const customer = await assay.signUp()
    const { session_id: session } = await customer.session()
    const own = holding(world.db)
    const listening = await assay.serve((await replicaOn(world, own.db)).app)
    const held = own.hold(LOADER)
    const leaver = await client(
      listening.port,
      lines(`DELETE /api/sessions/${session}`, bearer(customer.accessToken)),
    )
    await held.has
    leaver.leave(by)
    await allHaveLeft(listening.server)
    held.release()
    const addresses = () =>
      world.db.query<{ ip: string }>(
        'select ip from assay.audit_events where session_id = $1 and type = $2',
        [session, 'session.revoked'],
      )
    await until('the session is revoked', async () => (await addresses()).length === 1)
    expect(await addresses()).toEqual([{ ip: '127.0.0.1' }])
  })
})

test('an export to a client that stays has every event', async () => {
  const { body } = await ask(served.port, 'GET /admin/audit/export?type=token.issued', {
    ...bearer(READER),
    'Accept-Encoding': 'identity',
  })
  expect(body.match(/"api_key:x"/g)).toHaveLength(EVENTS)
})

test('HEAD of an export is answered without a body', async () => {
  const { status, body } = await ask(served.port, 'HEAD /admin/audit/export', bearer(READER))
  expect([status, body]).toEqual([200, ''])
})

describe('an export that fails after its first page', () => {
  test.each(['1.0', '1.1'])(
    'resets the connection, so that no HTTP/%s client takes it for complete',
    async version => {
      const first = database.hold(PAGE)
      const socket = connect(served.port, '127.0.0.1')
      const errors: unknown[] = []
      socket.on('error', error => errors.push(error))
      let received = ''
      socket.on('data', chunk => {
        received += chunk
      })
      socket.write(EXPORT.replace('HTTP/1.1', `HTTP/${version}`))
      await first.has
      await world.admin.query('alter table assay.audit_events rename to elsewhere')
      first.release()
      await new Promise(resolve => socket.once('close', resolve))
      await world.admin.query('alter table assay.elsewhere rename to audit_events')
      expect(errors).toMatchObject([{ code: 'ECONNRESET' }])
      expect(received).toMatch(/^HTTP\/1\.1 200 OK\r\n/)
      expect(warnings()).toMatchObject([{ level: 40, msg: 'an audit export failed before its end' }])
      expect((await ask(served.port, 'GET /healthz')).status).toBe(200)
    },
  )
})

test.each(['plain', 'pieces'])(
  'a reply with an invalid header (%s) becomes a logged 500, and does not end the process',
  async kind => {
    async function* pieces() {
      yield Buffer.from('never sent')
    }
    const app = new Hono<AppEnv>({ getPath }).get('/healthz', c => c.json({}))
    const body = () => (kind === 'plain' ? 'never sent' : Readable.toWeb(Readable.from(pieces())))
    app.get('/bug', () => new Response(body(), { headers: { 'X-A': 'a\nb' } }))
    const { port } = await assay.serve(app)
    const received = await exchange(port, lines('GET /bug'))
    expect(received).toMatch(/^HTTP\/1\.1 500 Internal Server Error\r\n/)
    expect(received).not.toContain('never sent')
    expect(warnings()).toMatchObject([{ level: 50, msg: 'a response could not be written' }])
    expect((await ask(port, 'GET /healthz')).status).toBe(200)
  },
)
