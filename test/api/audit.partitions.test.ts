import { afterAll, beforeAll, expect, test } from 'vitest'
import { makePartitions } from '../../db/queries/audit-partitions.ts'
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

/** The partitions of the months `from` to `to`, counted from the database's present one. */
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

// In this order: the clock only goes forward.

test('the partitions of this month and of three ahead are there, and the default one', async () => {
  expect(await partitions()).toEqual([...(await monthly(0, 3)), 'audit_events_default'].sort())
})

test("an event is kept in its month's partition", async () => {
  const { id } = await assay.signUp()
  expect(await partitionsOf(id)).toEqual(await monthly(0, 0))
  await inDays(62)
  const later = await assay.signUp()
  expect(await partitionsOf(later.id)).toEqual(await monthly(0, 0))
})

test('an event outside of every month is kept in the default partition, and is found', async () => {
  await inDays(304)
  const customer = await assay.signUp()
  expect(await partitionsOf(customer.id)).toEqual(['audit_events_default'])
  const { json } = await assay.get('/api/audit', customer.accessToken)
  expect(json.events).toMatchObject([{ type: 'customer.signed_up' }])
})

test('a month that began in the default partition stays there, and the next start makes the others', async () => {
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

test('what is older than the audit is kept goes, whole months and what stood elsewhere; the rest stays', async () => {
  const { id } = await assay.signUp()
  /** Of the oldest event (days). */
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
