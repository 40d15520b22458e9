import { afterAll, beforeAll, expect, test } from 'vitest'
import { orderEvents } from '../../db/queries/audit-order.ts'
import {
  follow,
  insertEvents,
  type OrderedEvent,
  orderAll,
  orderUntilNothingIsMissing,
} from '../support/audit-order.ts'
import { ADMIN_TOKEN, ALICE, bearer, makeWorld, READER, type Replica, type World } from '../support/world.ts'

/** Operators follow the audit by positions, which events get after they are committed. */

let world: World
let assay: Replica

beforeAll(async () => {
  world = await makeWorld()
  assay = await world.replica()
})
afterAll(() => world.stop())

const get = (query: string) => assay.get(`/admin/audit?${query}`, READER)
const positions = (events: OrderedEvent[]) => events.map(({ cursor }) => Number(cursor.split('.')[0]))
/** The cursor at the end of the order. */
async function end(): Promise<string> {
  await orderAll(world)
  const reader = follow(assay)
  await reader.read()
  return reader.after
}

// These two run first, while the order is empty.

test('an empty order can be read, and its reader starts again at 0', async () => {
  const { status, json } = await get('after=0')
  expect([status, json]).toEqual([
    200,
    { events: [], next: '0', more: false, complete_until: expect.any(String) },
  ])
})

test('an event has a position once the sequencer has run, and keeps it', async () => {
  const customer = await assay.signUp()
  await customer.issue({ subject: 'one' })
  expect((await get('after=0')).json).toMatchObject({ events: [], more: false })
  expect(await orderAll(world)).toBe(2)
  expect(await orderAll(world)).toBe(0)
  const { json } = await get('after=0')
  expect(json).toMatchObject({
    events: [
      { type: 'customer.signed_up', customer_id: customer.id, cursor: /^1\./ },
      { type: 'token.issued', subject: 'one', cursor: /^2\./ },
    ].map(event => ({ ...event, cursor: expect.stringMatching(event.cursor) })),
    next: json.events[1].cursor,
    more: false,
  })
  await customer.issue({ subject: 'two' })
  await orderAll(world)
  expect((await get('after=0')).json.events.slice(0, 2)).toEqual(json.events)
  expect((await get(`after=${json.next}`)).json.events).toMatchObject([{ subject: 'two' }])
})

test('pages of any size have the same events in the same order, oldest first', async () => {
  await world.admin.query(insertEvents(1, 40))
  await orderAll(world)
  const whole = await follow(assay).read()
  expect(positions(whole)).toEqual(whole.map((_, n) => n + 1))
  for (const limit of [1, 3, 7, 1_000]) expect(await follow(assay, { limit }).read()).toEqual(whole)
  const middle = whole[20]!.cursor
  expect(await follow(assay, { after: middle }).read()).toEqual(whole.slice(21))
})

test('a page says whether there are more events, and no reader gets an event twice', async () => {
  const reader = follow(assay, { after: await end() })
  await world.admin.query(insertEvents(1, 5))
  expect(await reader.read()).toEqual([])
  await orderAll(world)
  expect((await get(`after=${reader.after}&limit=4`)).json).toMatchObject({ more: true })
  expect((await get(`after=${reader.after}&limit=5`)).json).toMatchObject({ more: false })
  expect(await reader.read()).toHaveLength(5)
  expect(await reader.read()).toEqual([])
})

test('a filter skips events, and the cursor still advances past them', async () => {
  const after = await end()
  const customer = await assay.signUp()
  await world.admin.query(insertEvents(1, 30))
  await assay.postJson(`/admin/customers/${customer.id}/disable`, {}, bearer(ALICE))
  await orderAll(world)
  const types = async (filter: string) =>
    (await follow(assay, { after, filter, limit: 4 }).read()).map(({ type }) => type)
  expect(await types(`&customer=${customer.id}`)).toEqual(['customer.signed_up', 'customer.disabled'])
  expect(await types('&operator=alice')).toEqual(['customer.disabled'])
  expect(await types('&type=customer.login_failed')).toHaveLength(30)
  const { json } = await get(`after=${after}&limit=1000`)
  const { at } = json.events[0]
  expect((await get(`after=${after}&limit=1000&from=${at}`)).json.events).toEqual(json.events)
  expect(await types(`&to=${at}`)).toEqual([])
  const { json: filtered } = await get(`after=${after}&limit=4&operator=alice`)
  expect(filtered).toMatchObject({ events: [], more: true })
  expect(filtered.next).toBe(json.events[3].cursor)
})

test('every committed event has its position before the time that a page reports', async () => {
  const now = async () =>
    (await world.admin.query<{ t: Date }>('select assay.now() as t'))[0]!.t.toISOString()
  await world.admin.query(insertEvents(1, 1))
  const committed = await now()
  expect((await get('after=0')).json.complete_until < committed).toBe(true)
  await orderAll(world)
  const { complete_until: until } = (await get('after=0')).json
  expect(until >= committed).toBe(true)
  // In an idle database the time is written every five seconds, not on every run.
  await orderAll(world)
  expect((await get('after=0')).json.complete_until).toBe(until)
  await world.advance(6_000)
  await orderAll(world)
  expect((await get('after=0')).json.complete_until > until).toBe(true)
})

test('the export has the whole order, one line per event, and can continue after a cursor', async () => {
  await world.admin.query(insertEvents(1, 2_500))
  await orderAll(world)
  const whole = await follow(assay, { limit: 1_000 }).read()
  const lines = async (query: string) =>
    (await assay.get(`/admin/audit/export${query}`, READER)).text
      .split('\n')
      .filter(Boolean)
      .map(line => JSON.parse(line))
  expect(await lines('')).toEqual(whole)
  expect(await lines(`?after=${whole[1_200]!.cursor}`)).toEqual(whole.slice(1_201))
  expect(await lines(`?after=${await end()}`)).toEqual([])
})

const UUID = '00000000-0000-4000-8000-000000000000'

test.each([
  'after=1',
  'after=00',
  `after=0.${UUID}`,
  `after=01.${UUID}`,
  `after=1.${UUID.toUpperCase().replace('8', 'A')}`,
  `after=1.${UUID}0`,
  `after=9999999999999999.${UUID}`,
  'after=garbage',
  'after=',
  'after=0&limit=0',
  'after=0&limit=1001',
  'after=0&type=unknown',
  'after=0&cursor=MTcwMDAwMDAwMDAwMCAx',
  'limit=101',
])('a request for the order with %s is refused', async query => {
  for (const path of query.includes('limit') || query.includes('cursor') ? [''] : ['', '/export']) {
    const { status, json } = await assay.get(`/admin/audit${path}?${query}`, READER)
    expect([status, json.error]).toEqual([400, 'invalid_request'])
  }
})

test('a cursor of a lost order is refused: beyond the end, or where other events now have its position', async () => {
  await world.admin.query(insertEvents(1, 10))
  const [position = 0, mark] = (await end()).split('.')
  for (const after of [`${Number(position) + 1}.${mark}`, `${position}.${UUID}`, `1.${mark}`]) {
    for (const path of ['', '/export']) {
      const { status, json } = await assay.get(`/admin/audit${path}?after=${after}`, READER)
      expect([status, json.error]).toEqual([409, 'conflict'])
      expect(json.detail).toContain('continue from an older cursor')
    }
  }
})

test('a restored database tells a reader that was ahead, even after it has grown past the reader’s cursor', async () => {
  const behind = await end()
  const [{ position, last_id }] = (await world.admin.query(
    'select position, last_id from assay.audit_sequencer',
  )) as [{ position: number; last_id: number }]
  await world.admin.query(insertEvents(1, 3))
  const ahead = await end()
  // This is the state of a standby that did not receive the last events.
  await world.admin.query(`delete from assay.audit_events where id > ${last_id}`)
  await world.admin.query(`delete from assay.audit_batches where last_position > ${position}`)
  await world.admin.query(`update assay.audit_sequencer set position = ${position}, last_id = ${last_id}`)
  await world.admin.query(`select setval('assay.audit_event_ids', ${last_id})`)
  expect((await get(`after=${ahead}`)).status).toBe(409)
  await world.admin.query(insertEvents(4, 9))
  await orderAll(world)
  expect((await get(`after=${ahead}`)).status).toBe(409)
  const since = await follow(assay, { after: behind }).read()
  expect(since.map(({ actor }) => actor)).toEqual([4, 5, 6, 7, 8, 9].map(n => `planted:${n}`))
})

test('the events of an erased customer keep their positions and lose their personal data', async () => {
  const after = await end()
  const customer = await assay.signUp()
  await customer.issue({ subject: 'someone@example.com' })
  await orderAll(world)
  const before = await follow(assay, { after }).read()
  // An event that is erased before it has a position.
  await customer.issue({ subject: 'another@example.com' })
  await assay.request(`/admin/customers/${customer.id}`, { method: 'DELETE', headers: bearer(ADMIN_TOKEN) })
  await orderAll(world)
  const events = await follow(assay, { after }).read()
  expect(events.map(({ type }) => type)).toEqual([
    'customer.signed_up',
    'token.issued',
    'token.issued',
    'customer.erased',
  ])
  expect(positions(events).slice(0, 2)).toEqual(positions(before))
  expect(JSON.stringify(events)).not.toContain('@example.com')
})

test('metrics show how long ago every event was known to have its position', async () => {
  const lag = async () =>
    Number(
      /^assay_audit_order_lag_seconds (\S+)$/m.exec((await assay.get('/metrics', ADMIN_TOKEN)).text)?.[1],
    )
  await assay.sequencer.run()
  assay.clock.skip(90_000)
  expect(await lag()).toBeGreaterThan(90)
  await assay.sequencer.run()
  expect(await lag()).toBeLessThan(30)
})

// These tests run last: the clock only moves forward.

test('a reader is told how many expired events it missed, and the order of those is deleted', async () => {
  await world.admin.query(insertEvents(1, 3))
  const old = await end()
  await world.advance(500 * 86_400_000)
  await world.admin.query(insertEvents(4, 6))
  await orderAll(world)
  // Detaches the month. Its order is kept, because the month may be attached again.
  await world.maintain()
  const total = Number(old.split('.')[0])
  const { json } = await get('after=0&limit=1000')
  expect(json).toMatchObject({ events: [], more: true, expired: 1_000 })
  await world.advance(8 * 86_400_000)
  await world.maintain()
  const batches = () =>
    world.admin.query<{ first: number }>('select min(first_position) as first from assay.audit_batches')
  expect(await batches()).toEqual([{ first: total + 1 }])
  const { json: after } = await get('after=0&limit=1000')
  expect(after).toMatchObject({ events: [{}, {}, {}], more: false, expired: total })
  expect((await get(`after=${old}`)).json).toMatchObject({ events: [{}, {}, {}], more: false })
  expect((await get(`after=${old}`)).json).not.toHaveProperty('expired')
  // The newest batch is kept, so a reader that has read everything is not told that it missed anything.
  await world.advance(500 * 86_400_000)
  await world.maintain()
  expect(await batches()).toEqual([{ first: total + 1 }])
  expect((await get(`after=${after.next}`)).json).not.toHaveProperty('expired')
})

test('a run without new events writes nothing', async () => {
  // The ids of failed acts are given up once no running transaction could still have them.
  await orderUntilNothingIsMissing(world)
  const state = () => world.admin.query('select xmin::text, ctid::text, * from assay.audit_sequencer')
  const before = await state()
  expect(await orderEvents(world.db, {})).toEqual([{ ordered: 0, more: false, complete: true }])
  expect(await state()).toEqual(before)
})
