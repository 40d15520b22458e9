import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest'
import { makePartitions } from '../../db/queries/audit-partitions.ts'
import { follow, orderAll } from '../support/audit-order.ts'
import { ADMIN_TOKEN, makeWorld, type Replica, type World } from '../support/world.ts'

let world: World
let assay: Replica

beforeAll(async () => {
  world = await makeWorld({ KEY_MAX_AGE: '0s' })
  assay = await world.replica()
})
afterAll(() => world.stop())

const partitions = async () =>
  (
    await world.admin.query<{ name: string }>(
      `select c.relname as name from pg_inherits i join pg_class c on c.oid = i.inhrelid
      where i.inhparent = 'assay.audit_events'::regclass order by c.relname`,
    )
  ).map(({ name }) => name)

/** The partitions of the months `from` to `to`, relative to the database's current month. */
async function monthly(from: number, to: number) {
  const rows = await world.admin.query<{ name: string }>(
    `select to_char(date_trunc('month', assay.now() at time zone 'UTC') + make_interval(months => n),
      '"audit_events_"YYYY_MM') as name from generate_series($1::int, $2::int) n`,
    [from, to],
  )
  return rows.map(({ name }) => name)
}

const partitionsOf = async (customerId: string) =>
  (
    await world.admin.query<{ name: string }>(
      `select distinct c.relname as name from assay.audit_events e join pg_class c on c.oid = e.tableoid
      where e.customer_id = $1`,
      [customerId],
    )
  ).map(({ name }) => name)

const inDays = (days: number) => world.advance(days * 86_400_000)

// In this order, because the clock only moves forward.

test('there are partitions for this month, the next three and a default one', async () => {
  expect(await partitions()).toEqual([...(await monthly(0, 3)), 'audit_events_default'].sort())
})

test("an event is kept in its month's partition", async () => {
  const { id } = await assay.signUp()
  expect(await partitionsOf(id)).toEqual(await monthly(0, 0))
  await inDays(62)
  const later = await assay.signUp()
  expect(await partitionsOf(later.id)).toEqual(await monthly(0, 0))
})

test('an event outside every month is stored in the default partition, and can be found', async () => {
  await inDays(304)
  const customer = await assay.signUp()
  expect(await partitionsOf(customer.id)).toEqual(['audit_events_default'])
  const { json } = await assay.get('/api/audit', customer.accessToken)
  expect(json.events).toMatchObject([{ type: 'customer.signed_up' }])
})

test('a month that began in the default partition stays there, and the next start creates the others', async () => {
  const customer = await assay.signUp()
  await makePartitions(world.db)
  const [begun = '', ...ahead] = await monthly(0, 3)
  const made = await partitions()
  expect(made).toEqual(expect.arrayContaining(ahead))
  expect(made).not.toContain(begun)
  expect((await customer.issue()).status).toBe(200)
  expect(await partitionsOf(customer.id)).toEqual(['audit_events_default'])
  await makePartitions(world.db)
  expect(await partitions()).toEqual(made)
})

test('events older than the retention are removed, as whole months and from the default partition; others stay', async () => {
  const { id } = await assay.signUp()
  /** Age of the oldest event (days). */
  const age = async () =>
    Number(
      (
        await world.admin.query<{ days: number }>(
          `select extract(epoch from assay.now() - min(at)) / 86400 as days from assay.audit_events`,
        )
      )[0]!.days,
    )
  await world.maintain()
  const before = await partitions()
  await inDays(300)
  expect(await age()).toBeGreaterThan(600)
  await world.maintain()
  expect(await age()).toBeLessThan(431)
  expect(await partitionsOf(id)).toHaveLength(1)
  await inDays(200)
  await world.maintain()
  expect(await partitionsOf(id)).toEqual([])
  for (const month of before.slice(0, 3)) expect(await partitions()).not.toContain(month)
  const { text } = await assay.get('/metrics', ADMIN_TOKEN)
  expect(text).toMatch(/^assay_maintenance_jobs_total\{task="audit",outcome="ok"\} 3$/m)
  expect(Number(/^assay_maintenance_removed_total\{task="audit"\} (\d+)$/m.exec(text)?.[1])).toBeGreaterThan(
    3,
  )
})

/** A world whose first month is past the retention. Returns the name of that month and a customer with events in it. */
async function worldWithOldMonth() {
  const old = await makeWorld({ KEY_MAX_AGE: '0s' })
  onTestFinished(() => old.stop())
  const replica = await old.replica()
  const { id } = await replica.signUp()
  const [{ month } = { month: '' }] = await old.admin.query<{ month: string }>(
    `select to_char(assay.now() at time zone 'UTC', '"audit_events_"YYYY_MM') as month`,
  )
  await orderAll(old)
  await old.advance(432 * 86_400_000)
  // The order's newest batch is always kept, so this event starts another one.
  await replica.signUp()
  await orderAll(old)
  await old.maintain()
  const state = async () => {
    const [row] = await old.admin.query<{ attached: boolean }>(
      `select relispartition as attached from pg_class where relname = $1 and relkind = 'r'`,
      [month],
    )
    return row === undefined ? 'dropped' : row.attached ? 'attached' : 'detached'
  }
  const events = async () =>
    (await old.admin.query('select from assay.audit_events where customer_id = $1', [id])).length
  const ordered = async () =>
    (await follow(replica, { filter: `&customer=${id}` }).read()).map(({ type }) => type)
  return { old, month, state, events, ordered }
}

const DAY = 86_400_000

test('an expired month is detached, and its table is dropped a week later', async () => {
  const { old, state, events } = await worldWithOldMonth()
  expect([await state(), await events()]).toEqual(['detached', 0])
  await old.advance(7 * DAY - 60_000)
  await old.maintain()
  expect(await state()).toBe('detached')
  await old.advance(120_000)
  await old.maintain()
  expect(await state()).toBe('dropped')
})

test('a jump of the clock does not drop a detached month', async () => {
  const { old, state } = await worldWithOldMonth()
  await old.jump(30 * DAY)
  await old.maintain()
  expect(await state()).toBe('detached')
  await old.jump(-30 * DAY)
  await old.maintain()
  expect(await state()).toBe('detached')
})

test('a detached month can be attached again with its events, as docs/operating.md describes', async () => {
  const { old, month, state, events, ordered } = await worldWithOldMonth()
  expect(await ordered()).toEqual([])
  const from = month.slice(-7).replace('_', '-')
  const manual = readFileSync(join(import.meta.dirname, '../../docs/operating.md'), 'utf8')
  const [, commands = ''] = /```sql\n([^`]+attach partition[^`]+)```/.exec(manual) ?? []
  const to = new Date(Date.UTC(Number(from.slice(0, 4)), Number(from.slice(5)))).toISOString().slice(0, 7)
  const statements = commands
    .replaceAll('audit_events_2025_01', month)
    .replaceAll('2025-01', from)
    .replaceAll('2025-02', to)
    .split(';')
  // An event of an erased customer, written after the detach.
  await old.admin.query(
    `insert into assay.audit_events (at, customer_id, type, actor, subject) values ($1, 'gone', 'token.issued', 'x', 'ann')`,
    [`${from}-01 12:00:00+00`],
  )
  expect(statements.slice(0, -1)).toHaveLength(3)
  for (const statement of statements.slice(0, -1)) await old.admin.query(statement)
  const [gone] = await old.admin.query<{ month: string; subject: string | null }>(
    `select tableoid::regclass::text as month, subject from assay.audit_events where customer_id = 'gone'`,
  )
  expect(gone).toEqual({ month: `assay.${month}`, subject: null })
  expect([await state(), await events()]).toEqual(['attached', 1])
  // A reader of the order also gets the event, at its original position.
  expect(await ordered()).toEqual(['customer.signed_up'])
  // It is still expired, so the next round detaches it again, and the week starts again.
  await old.advance(6 * DAY)
  await old.maintain()
  expect(await state()).toBe('detached')
  await old.advance(6 * DAY)
  await old.maintain()
  expect(await state()).toBe('detached')
})
