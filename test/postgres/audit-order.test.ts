import { setTimeout as pause } from 'node:timers/promises'
import { afterAll, beforeAll, beforeEach, expect, onTestFinished, test } from 'vitest'
import { open } from '../../db/client.ts'
import { orderEvents } from '../../db/queries/audit-order.ts'
import { follow, insertEvents, orderAll, orderUntilNothingIsMissing } from '../support/audit-order.ts'
import { control } from '../support/database.ts'
import { until } from '../support/process.ts'
import { makeWorld, type Replica, type World } from '../support/world.ts'

/** Transactions that commit in a different order than they began, and concurrent or killed sequencers. */

let world: World
let assay: Replica
let reader: ReturnType<typeof follow>

beforeAll(async () => {
  world = await makeWorld()
  assay = await world.replica()
})
afterAll(() => world.stop())
beforeEach(async () => {
  await orderUntilNothingIsMissing(world)
  const before = follow(assay, { limit: 1_000 })
  await before.read()
  reader = follow(assay, { limit: 7, after: before.after })
})

/** A transaction on its own connection, which the test ends. */
async function transaction(statement: string) {
  const sql = control(world.url!)
  onTestFinished(() => sql.end({ timeout: 0 }))
  await sql.unsafe('begin')
  await sql.unsafe(statement)
  return {
    run: (more: string) => sql.unsafe(more),
    commit: () => sql.unsafe('commit'),
    fail: () => sql.unsafe('rollback'),
  }
}

/** An act that fails after it has drawn the id of its event. */
const fail = (n: number) =>
  expect(
    world.admin.query(`do $$ begin ${insertEvents(n, n)}; raise exception 'it fails'; end $$`),
  ).rejects.toMatchObject({ sqlstate: 'P0001' })

const insert = (from: number, to = from) => world.admin.query(insertEvents(from, to))
const read = async () => (await reader.read()).map(({ actor }) => Number(actor.replace('planted:', '')))
const state = async () =>
  (
    await world.admin.query<{ missing: string; leaving: string; count: number }>(
      'select missing::text, leaving::text, (select count(*)::int from unnest(missing)) as count from assay.audit_sequencer',
    )
  )[0]!

test('an event that commits late comes once, after those that were already read', async () => {
  const late = await transaction(insertEvents(1, 3))
  const later = await transaction(insertEvents(4, 4))
  const seen: number[] = []
  for (let n = 10; n < 20; n++) {
    await insert(n)
    await orderAll(world)
    seen.push(...(await read()))
  }
  expect(seen).toEqual([10, 11, 12, 13, 14, 15, 16, 17, 18, 19])
  await late.commit()
  await insert(20)
  await orderAll(world)
  expect(await read()).toEqual([1, 2, 3, 20])
  for (let run = 0; run < 3; run++) await orderAll(world)
  await later.commit()
  await orderAll(world)
  expect(await read()).toEqual([4])
})

test('an event that commits late delays neither the others nor the time up to which all are present', async () => {
  const held = await transaction(insertEvents(1, 1))
  await insert(2)
  const [{ t }] = (await world.admin.query<{ t: Date }>('select assay.now() as t')) as [{ t: Date }]
  expect(await orderEvents(world.db, {})).toEqual([{ ordered: 1, more: false, complete: true }])
  const { json } = await assay.get(
    `/admin/audit?after=${reader.after}`,
    'alice-8Vd2Kq7Zx1Wm5Tn9Rc4Yb6Hf3Jg0Ls',
  )
  expect(Date.parse(json.complete_until)).toBeGreaterThanOrEqual(t.getTime())
  await held.fail()
})

test('the id of a failed transaction is given up, and that of a running one is not', async () => {
  const running = await transaction(insertEvents(1, 1))
  for (let n = 2; n < 20; n += 2) {
    await fail(n)
    await insert(n + 1)
    await orderAll(world)
  }
  for (let run = 0; run < 5; run++) await orderAll(world)
  // The horizon is the oldest transaction, so the failed ids stay until it has ended. Two of the ids are consecutive.
  expect((await state()).count).toBe(9)
  await running.commit()
  await orderUntilNothingIsMissing(world)
  expect((await state()).leaving).toBe('{}')
  const numbers = await read()
  expect(numbers.toSorted((a, b) => a - b)).toEqual([1, ...Array.from({ length: 9 }, (_, n) => 2 * n + 3)])
})

test('an id is not given up before its row is written, however long that takes', async () => {
  // The first id after a checkpoint is written to the WAL, which gives its transaction a number in any case.
  await insert(0)
  // The trigger runs after the id was drawn and before the row is written.
  await world.admin.query(`create function public.hold() returns trigger language plpgsql as $$ begin
    perform pg_advisory_xact_lock_shared(4711); return new; end $$`)
  await world.admin.query(`create trigger hold before insert on assay.audit_events for each row
    when (new.actor = 'planted:1') execute function public.hold()`)
  const lock = await transaction('select pg_advisory_xact_lock(4711)')
  const held = insert(1)
  const waiting = () =>
    world.admin.query<{ numbered: boolean }>(`select backend_xid is not null as numbered from pg_stat_activity
      where wait_event = 'advisory' and query like '%planted%' and datname = current_database()`)
  await until('the insert waits', async () => (await waiting()).length === 1)
  // Its transaction has a number, by which the sequencer knows that it is running.
  expect(await waiting()).toEqual([{ numbered: true }])
  await insert(2)
  for (let run = 0; run < 5; run++) await orderAll(world)
  await lock.commit()
  await held
  await world.admin.query('drop trigger hold on assay.audit_events')
  await orderAll(world)
  expect(await read()).toEqual([0, 2, 1])
})

test('a savepoint that was rolled back delays nothing', async () => {
  const held = await transaction(insertEvents(1, 1))
  await held.run('savepoint s')
  await held.run(insertEvents(2, 2))
  await held.run('rollback to s')
  await held.run(insertEvents(3, 3))
  await insert(4)
  await orderAll(world)
  await held.commit()
  await orderUntilNothingIsMissing(world)
  expect(await read()).toEqual([4, 1, 3])
})

test('two concurrent sequencers give each event one position', async () => {
  const links = [await open({ url: world.url! }), await open({ url: world.url! })]
  onTestFinished(async () => void (await Promise.all(links.map(link => link.close()))))
  let writing = true
  const sequencing = links.map(async link => {
    let ordered = 0
    while (writing) ordered += (await orderEvents(link, {}))[0]!.ordered
    return ordered
  })
  for (let n = 0; n < 300; n++) await insert(n)
  writing = false
  const ordered = await Promise.all(sequencing)
  const rest = await orderAll(world)
  expect(ordered[0]! + ordered[1]! + rest).toBe(300)
  expect(await read()).toEqual(Array.from({ length: 300 }, (_, n) => n))
})

test('a sequencer that is killed in the middle leaves nothing behind, and delays no other', async () => {
  await insert(1, 5)
  const lock = await transaction('lock table assay.audit_batches in share mode')
  const link = await open({ url: world.url! })
  onTestFinished(() => link.close())
  const killed = expect(orderEvents(link, {})).rejects.toThrow()
  const waits = `from pg_stat_activity where query like '%orderEvents%' and wait_event_type = 'Lock'
    and datname = current_database()`
  await until('it waits', async () => (await world.admin.query(`select ${waits}`)).length === 1)
  expect(await orderEvents(world.db, {})).toEqual([{ ordered: 0, more: false, complete: false }])
  await world.admin.query(`select pg_terminate_backend(pid) ${waits}`)
  await killed
  await lock.commit()
  expect(await orderAll(world)).toBe(5)
  expect(await read()).toEqual([1, 2, 3, 4, 5])
})

test('a database that was dumped and restored elsewhere gives up the ids of its old transactions', async () => {
  await fail(1)
  await insert(2)
  await orderAll(world)
  await orderAll(world)
  // The other server's transaction numbers were far ahead.
  await world.admin.query(`update assay.audit_sequencer set leaving = missing, barrier = '9000000000'`)
  await insert(3)
  await orderUntilNothingIsMissing(world)
  expect(await read()).toEqual([2, 3])
})

test('many failed acts during an open transaction stop the order until it ends, and lose nothing', async () => {
  const held = await transaction(insertEvents(0, 0))
  // Every second id fails.
  await world.admin.query(`do $$ begin for n in 1..10100 loop
    perform nextval('assay.audit_event_ids');
    insert into assay.audit_events (at, type, actor) values (assay.now(), 'customer.login_failed', 'planted:' || n);
    end loop; end $$`)
  await orderAll(world)
  const runs = [await orderEvents(world.db, {}), await orderEvents(world.db, {})].flat()
  expect(runs).toEqual(runs.map(() => ({ ordered: 0, more: false, complete: false })))
  expect((await state()).count).toBeGreaterThanOrEqual(10_000)
  await held.commit()
  await orderUntilNothingIsMissing(world)
  await orderAll(world)
  const whole = await follow(assay, { limit: 1_000, after: reader.after }).read()
  const numbers = whole.map(({ actor }) => Number(actor.replace('planted:', '')))
  expect(numbers.toSorted((a, b) => a - b)).toEqual(Array.from({ length: 10_101 }, (_, n) => n))
})

test('a run reads new and missing events, not the whole audit', async () => {
  await insert(1, 20_000)
  await orderAll(world)
  const held = await transaction(insertEvents(1, 1))
  await insert(2, 4)
  await orderAll(world)
  const sql = control(world.url!)
  onTestFinished(() => sql.end())
  await sql.begin(async run => {
    await run`select assay.order_audit_events()`
    const [read] = await run`select sum(seq_tup_read)::int as whole, sum(idx_tup_fetch)::int as fetched
      from pg_stat_xact_user_tables where relname like 'audit\_events%'`
    expect(read).toMatchObject({ whole: 0 })
    expect(read!.fetched).toBeLessThan(10)
  })
  await held.fail()
})

test('the serving role can change no position, and cannot choose the id of an event', async () => {
  for (const act of [
    `insert into assay.audit_events (at, id, type, actor) values (assay.now(), 1, 'x', 'x')`,
    `update assay.audit_events set id = 1`,
    `update assay.audit_sequencer set last_id = 0`,
    `delete from assay.audit_batches`,
    `update assay.audit_batches set ids = '{}'`,
    `insert into assay.audit_batches values (1, 1, '{}', '{}', gen_random_uuid())`,
    `truncate assay.audit_batches`,
    `select setval('assay.audit_event_ids', 1)`,
  ])
    await expect(world.db.query(act)).rejects.toMatchObject({ sqlstate: '42501' })
})

test('a reader that follows many writers, fast and slow, gets every event once', async () => {
  const writers = 8
  const perWriter = 25
  let writing = true
  const committed = new Set<number>()
  async function write(writer: number) {
    const sql = control(world.url!)
    for (let n = 0; n < perWriter; n++) {
      const number = writer * 1_000 + n
      const wait = Math.random() < 0.1 ? Math.random() * 0.2 : Math.random() * 0.01
      const fails = Math.random() < 0.2
      await sql.unsafe(`begin; ${insertEvents(number, number)}; select pg_sleep(${wait})`)
      await sql.unsafe(fails ? 'rollback' : 'commit')
      if (!fails) committed.add(number)
    }
    await sql.end()
  }
  const sequencing = [0, 1].map(async () => {
    for (; writing; await pause(5)) await assay.sequencer.run()
  })
  const seen: number[] = []
  const reading = (async () => {
    for (; writing; await pause(3)) seen.push(...(await read()))
  })()
  await Promise.all(Array.from({ length: writers }, (_, writer) => write(writer + 1)))
  writing = false
  await Promise.all([...sequencing, reading])
  await orderAll(world)
  seen.push(...(await read()))
  expect(seen).toHaveLength(committed.size)
  expect(new Set(seen)).toEqual(committed)
})
