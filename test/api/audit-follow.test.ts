import { randomBytes } from 'node:crypto'
import { afterAll, beforeAll, beforeEach, expect, onTestFinished, test } from 'vitest'
import { MAX_WAITERS, MAX_WAITERS_OF_OPERATOR } from '../../server/audit/order-waiters.ts'
import { insertEvents, orderAll } from '../support/audit-order.ts'
import { holding, named } from '../support/holding.ts'
import { until } from '../support/process.ts'
import { openRaw } from '../support/raw.ts'
import { lines } from '../support/wire.ts'
import { ADMIN_TOKEN, ALICE, bearer, makeWorld, READER, type Replica, type World } from '../support/world.ts'

/** `GET /admin/audit?after=CURSOR&wait=30s`: a request that waits for events at the end of their order. */

let world: World
let database: ReturnType<typeof holding>
let assay: Replica
/** The end of the order when the test began. */
let end: string

beforeAll(async () => {
  world = await makeWorld()
  database = holding(world.db)
  assay = await world.replica({}, { link: database.db })
})
afterAll(() => world.stop())
beforeEach(async () => {
  await orderAll(world)
  end = (await get('after=latest')).json.next
})

const get = (query: string, token = READER, at = assay) => at.get(`/admin/audit?${query}`, token)
const insert = (n: number) => world.admin.query(insertEvents(n, n))
const actors = (json: { events: { actor: string }[] }) => json.events.map(({ actor }) => actor)
const count = (n: number, at: Pick<Replica, 'orderWaiters'> = assay) =>
  until(`${n} requests wait`, () => at.orderWaiters.size === n)

/** A request that waits. `isAnswered` tells whether it has ended. */
async function wait(query = `after=${end}&wait=60s`, token = READER, at = assay) {
  const before = at.orderWaiters.size
  let isAnswered = false
  const answer = get(query, token, at).finally(() => {
    isAnswered = true
  })
  await count(before + 1, at)
  return { answer, isAnswered: () => isAnswered }
}

test('a request at the end is answered once an event has its place, and others are answered at once', async () => {
  const { answer, isAnswered } = await wait()
  for (let run = 0; run < 3; run++) await assay.sequencer.run()
  expect(isAnswered()).toBe(false)
  await insert(1)
  await assay.sequencer.run()
  const { status, json } = await answer
  expect([status, actors(json), json.more]).toEqual([200, ['planted:1'], false])
  expect(json.next).toBe(json.events[0].cursor)
  // The same request doesn't wait now, because the event is already there.
  expect(actors((await get(`after=${end}&wait=60s`)).json)).toEqual(['planted:1'])
  expect(assay.orderWaiters.size).toBe(0)
})

test('when the time is over the page is empty and the cursor the same', async () => {
  const began = performance.now()
  const { json } = await get(`after=${end}&wait=1s`)
  expect(json).toEqual({ events: [], next: end, more: false, complete_until: expect.any(String) })
  expect(performance.now() - began).toBeGreaterThanOrEqual(990)
})

test('latest is the end of the order, and a request may wait there', async () => {
  expect((await get('after=latest')).json).toMatchObject({ events: [], next: end, more: false })
  const { answer } = await wait('after=latest&wait=60s')
  await insert(1)
  await assay.sequencer.run()
  expect(actors((await answer).json)).toEqual(['planted:1'])
})

test('an event that another replica ordered is seen at the next run', async () => {
  const other = await world.replica()
  const { answer } = await wait()
  await insert(1)
  await other.sequencer.run()
  await assay.sequencer.run()
  expect(actors((await answer).json)).toEqual(['planted:1'])
})

test('with a filter it waits until an event matches, and its cursor passes those that do not', async () => {
  const { answer, isAnswered } = await wait(`after=${end}&wait=60s&operator=alice`)
  await insert(1)
  await assay.sequencer.run()
  await until('it has read', () => database.asked(named('listOrderedEvents')) > 0)
  expect(isAnswered()).toBe(false)
  const customer = await assay.signUp()
  await assay.postJson(`/admin/customers/${customer.id}/disable`, {}, bearer(ALICE))
  await assay.sequencer.run()
  const { json } = await answer
  expect(json.events).toMatchObject([{ type: 'customer.disabled', actor: 'operator:alice' }])
  expect((await get(`after=${json.next}`)).json.events).toEqual([])
})

test('any number that waits costs one read at each run of the sequencer, and none without them', async () => {
  const look = named('findLastPosition')
  const order = named('orderEvents', 'findLastPosition', 'findOrderSpan', 'listOrderedEvents')
  const cost = async () => {
    const before = [database.asked(look), database.asked(order)] as const
    await assay.sequencer.run()
    return { looks: database.asked(look) - before[0], all: database.asked(order) - before[1] }
  }
  expect(await cost()).toEqual({ looks: 0, all: 1 })
  const waits = [await wait(), await wait(), await wait(), await wait()]
  expect(await cost()).toEqual({ looks: 1, all: 2 })
  await insert(1)
  await assay.sequencer.run()
  for (const { answer } of waits) expect(actors((await answer).json)).toEqual(['planted:1'])
})

test('one operator has so many waiting requests and a process so many, and a further one is told to try again', async () => {
  const names = ['one', 'two', 'three', 'four', 'five']
  const tokens = new Map(names.map(name => [name, randomBytes(32).toString('hex')]))
  const tokenOf = (name: string) => tokens.get(name)!
  const own = await world.replica({ OPERATORS: names.map(name => `${name}:read:${tokenOf(name)}`).join(',') })
  const answers: Promise<unknown>[] = []
  const refused = async (name: string, why: string) => {
    const { status, json, headers } = await get(`after=${end}&wait=60s`, tokenOf(name), own)
    expect([status, json.error, headers.get('retry-after')]).toEqual([429, 'too_many_requests', '5'])
    expect(json.detail).toContain(why)
  }
  for (const name of names.slice(0, MAX_WAITERS / MAX_WAITERS_OF_OPERATOR)) {
    for (let n = 0; n < MAX_WAITERS_OF_OPERATOR; n++)
      answers.push((await wait(`after=${end}&wait=60s`, tokenOf(name), own)).answer)
    if (name === 'one') await refused(name, 'requests of this operator are waiting')
  }
  await refused('five', 'too many requests are waiting')
  // Without waiting they are answered.
  expect((await get(`after=${end}`, tokenOf('five'), own)).status).toBe(200)
  await insert(1)
  await own.sequencer.run()
  for (const answer of answers) expect(await answer).toMatchObject({ status: 200, json: { events: [{}] } })
  await count(0, own)
  const { answer } = await wait(`after=latest&wait=60s`, tokenOf('one'), own)
  own.orderWaiters.close()
  expect(await answer).toMatchObject({ status: 200 })
})

test('a server that drains answers those that wait with an empty page, and lets no other wait', async () => {
  const own = await world.replica()
  const { answer } = await wait(undefined, READER, own)
  own.orderWaiters.close()
  const empty = { status: 200, json: { events: [], next: end, more: false } }
  expect(await answer).toMatchObject(empty)
  expect(await get(`after=${end}&wait=60s`, READER, own)).toMatchObject(empty)
})

test('a client that leaves waits no longer', async () => {
  const { port } = await assay.serve()
  const clients = await Promise.all([openRaw(port), openRaw(port)])
  for (const client of clients) client.write(lines(`GET /admin/audit?after=${end}&wait=60s`, bearer(READER)))
  await count(2)
  clients[0]!.destroy()
  await count(1)
  clients[1]!.destroy()
  await count(0)
})

test('a request that waits on a socket is answered there', async () => {
  const { url } = await assay.serve()
  const answer = fetch(`${url}/admin/audit?after=${end}&wait=60s`, { headers: bearer(READER) })
  await count(1)
  await insert(1)
  await assay.sequencer.run()
  expect(actors((await (await answer).json()) as never)).toEqual(['planted:1'])
})

test('when the order cannot be read a request that waits gets 503, and not an empty page', async () => {
  const { answer } = await wait()
  const restore = () => world.admin.query('alter table if exists assay.hidden rename to audit_sequencer')
  onTestFinished(async () => void (await restore()))
  await world.admin.query('alter table assay.audit_sequencer rename to hidden')
  await assay.sequencer.run()
  const { status, json, headers } = await answer
  expect([status, json.error, headers.get('retry-after')]).toEqual([503, 'temporarily_unavailable', '1'])
  await restore()
  expect((await get(`after=${end}`)).status).toBe(200)
})

test('a database that has lost the position says so to a request that waits there', async () => {
  await insert(1)
  await orderAll(world)
  const { json } = await get('after=latest')
  const { answer } = await wait(`after=${json.next}&wait=60s`)
  // A standby that had not received the last event would have this state.
  const position = Number(json.next.split('.')[0])
  await world.admin.query(`delete from assay.audit_batches where first_position = ${position}`)
  await world.admin.query(
    `update assay.audit_sequencer set position = ${position - 1}, complete_until = assay.now()`,
  )
  await assay.sequencer.run()
  expect((await answer).status).toBe(409)
})

test('an operator whose token was replaced while it waited gets no event', async () => {
  const own = await world.replica()
  const { answer } = await wait(undefined, READER, own)
  own.operators.replace({ adminToken: ADMIN_TOKEN, operators: [] })
  await insert(1)
  await own.sequencer.run()
  const { status, text } = await answer
  expect(status).toBe(401)
  expect(text).not.toContain('planted')
})

test('the time that a request waited is not counted as time that its answer took', async () => {
  const own = await world.replica()
  await get(`after=${end}&wait=1s`, READER, own)
  const { text } = await own.get('/metrics', READER)
  expect(text).toContain('assay_request_seconds_bucket{le="0.5",route="/admin/audit"} 1')
})

test.each([
  ['wait=30s', 'works only together with after'],
  ['after=0&wait=30', 'from 1s to 60s'],
  ['after=0&wait=61s', 'from 1s to 60s'],
  ['after=0&wait=2m', 'from 1s to 60s'],
  ['after=0&wait=0s', 'from 1s to 60s'],
  ['after=0&wait=999ms', 'from 1s to 60s'],
  ['after=0&wait=-1s', 'from 1s to 60s'],
  ['after=0&wait=all', 'from 1s to 60s'],
  ['after=0&wait=1e3ms', 'from 1s to 60s'],
  ['after=0&wait=1s&wait=2s', 'repeated'],
  ['after=newest&wait=1s', 'after: '],
])('%s is refused', async (query, why) => {
  const { status, json } = await get(query)
  expect([status, json.error]).toEqual([400, 'invalid_request'])
  expect(json.detail).toContain(why)
})

test('nobody but operators may wait', async () => {
  const customer = await assay.signUp()
  for (const token of [customer.accessToken, customer.apiKey, 'x'.repeat(40)])
    expect((await get(`after=${end}&wait=60s`, token)).status).toBe(401)
  // A customer's own audit has no order to follow.
  expect((await assay.get(`/api/audit?wait=30s`, customer.accessToken)).status).toBe(400)
})
