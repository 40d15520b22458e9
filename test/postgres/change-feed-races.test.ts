import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest'
import { control } from '../support/database.ts'
import { hear, linkTo, replicaOn } from '../support/holding.ts'
import { until } from '../support/process.ts'
import { ADMIN_TOKEN, bearer, type Customer, makeWorld, type Replica, type World } from '../support/world.ts'

/** Cases that need a server with many connections: transactions that are open beside the change feed. */

let world: World
let here: Replica
let customer: Customer

beforeAll(async () => {
  world = await makeWorld({ MAX_STALENESS: '4s' })
  here = await world.replica()
  customer = await here.signUp()
})
afterAll(() => world.stop())

/** A transaction that has run `statement` and stays open until the test ends it. */
async function openTransaction(statement: string, { url } = world) {
  const sql = control(url!)
  let end = () => {}
  const ended = new Promise<void>(resolve => {
    end = resolve
  })
  const opened = Promise.withResolvers<void>()
  const transaction = sql.begin(async handle => {
    await handle.unsafe(statement)
    opened.resolve()
    await ended
  })
  await opened.promise
  const finish = async () => {
    end()
    await transaction
    await sql.end()
  }
  onTestFinished(finish)
  return finish
}

const revoke = (token: string, form = {}) =>
  here.postForm('/revoke', { token, ...form }, bearer(customer.apiKey))

test('a long transaction elsewhere in the database delays no revocation', async () => {
  const there = await replicaOn(world, world.db, { MAX_STALENESS: '4s' })
  const { access_token: token } = await customer.session()
  const finish = await openTransaction(
    `create table public.elsewhere (n int); insert into public.elsewhere values (1); select txid_current()`,
  )
  expect((await there.verify(token)).status).toBe(200)
  expect((await revoke(token, { wait: 'all' })).status).toBe(200)
  expect((await there.verify(token)).status).toBe(401)
  await finish()
})

test('the wait for the counter is measured, without any other wait of an act', async () => {
  const waits = async () => {
    const { text } = await here.get('/metrics', ADMIN_TOKEN)
    const read = (name: string) =>
      Number(new RegExp(`^assay_change_feed_lock_wait_seconds_${name} (.+)$`, 'm').exec(text)![1])
    return { count: read('count'), sum: read('sum') }
  }
  /** The growth of the measurement by an act that waits this long (ms) for this lock. */
  async function held(lock: string, milliseconds: number, act: () => Promise<unknown>) {
    const before = await waits()
    const finish = await openTransaction(lock)
    const acting = act()
    await until('the act waits', async () => {
      const waiting = `select 1 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`
      return (await world.admin.query(waiting)).length > 0
    })
    await new Promise(resolve => setTimeout(resolve, milliseconds))
    await finish()
    await acting
    const after = await waits()
    return { count: after.count - before.count, sum: after.sum - before.sum }
  }
  const [one, two] = [await customer.session(), await customer.session()]
  const ofCounter = await held('select from assay.change_feed for update', 300, () =>
    revoke(one.access_token),
  )
  expect(ofCounter.count).toBe(1)
  expect(ofCounter.sum).toBeGreaterThanOrEqual(0.25)
  // The act waits just as long, before it reaches the counter.
  const session = `select from assay.sessions where id = '${two.session_id}' for update`
  const ofRow = await held(session, 600, () => revoke(two.refresh_token))
  expect(ofRow.count).toBe(1)
  expect(ofRow.sum).toBeLessThan(0.5)
})

test('if the counter is set back while an act waits for it, the act fails instead of passing unpublished', async () => {
  const { access_token: token, refresh_token, session_id } = await customer.session()
  const finish = await openTransaction('update assay.change_feed set seq = seq - 1')
  const revoking = revoke(refresh_token)
  await until('the act waits', async () => {
    const waiting = `select 1 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`
    return (await world.admin.query(waiting)).length > 0
  })
  await finish()
  expect((await revoking).status).toBe(500)
  const ended = `select from assay.sessions where id = '${session_id}' and revoked_at is not null`
  expect(await world.admin.query(ended)).toEqual([])
  await world.admin.query('update assay.change_feed set seq = seq + 1')
  expect((await revoke(refresh_token)).status).toBe(200)
  await hear(here)
  expect((await here.verify(token)).status).toBe(401)
})

test('wait=all holds for a replica that was away and is just coming back', async () => {
  const replicas = () => world.admin.query<{ id: string }>('select id from assay.replicas')
  const others = (await replicas()).map(({ id }) => id)
  const there = await replicaOn(world, await linkTo(world.url!), { MAX_STALENESS: '4s' })
  const row = (await replicas()).find(({ id }) => !others.includes(id))
  const { access_token: token } = await customer.session()
  await hear(there)
  expect((await there.verify(token)).status).toBe(200)
  // Away for longer than its bound: no request waits for it, and it knows that it may not answer.
  there.clock.ahead.monotonic += 4_000
  await world.admin.query(`update assay.replicas set seen_at = seen_at - interval '1 hour' where id = $1`, [
    row!.id,
  ])
  const finish = await openTransaction(`select from assay.replicas where id = '${row!.id}' for update`)
  const comingBack = there.changeFeed.poll()
  await until('its poll has begun and waits for its row', async () => {
    const waiting = `select 1 from pg_stat_activity
      where datname = current_database() and wait_event_type = 'Lock' and query like '%/* poll */%'`
    return (await world.admin.query(waiting)).length > 0
  })
  expect((await revoke(token, { wait: 'all' })).status).toBe(200)
  await finish()
  await comingBack
  expect((await there.verify(token)).status).not.toBe(200)
})

test('a wait=all during which the database goes away is unknown', async () => {
  const lonely = await makeWorld({ MAX_STALENESS: '500ms' })
  onTestFinished(() => lonely.stop())
  const alone = await lonely.replica()
  const { apiKey, session } = await alone.signUp()
  const { access_token: token } = await session()
  const finish = await openTransaction('lock table assay.replicas in access exclusive mode', lonely)
  const { status, headers } = await alone.postForm('/revoke', { token, wait: 'all' }, bearer(apiKey))
  expect(status).toBe(503)
  expect(headers.get('retry-after')).toBe('1')
  await finish()
  await until('it polls again', () => alone.changeFeed.hasLease())
  expect((await alone.verify(token)).status).toBe(401)
})

test('a database that refuses the poll itself makes the state unknown', async () => {
  const replica = await replicaOn(world, await linkTo(world.url!), { MAX_STALENESS: '500ms' })
  const { access_token: token } = await customer.session()
  expect((await replica.verify(token)).status).toBe(200)
  await world.admin.query('alter table assay.replicas rename to gone')
  const seen = new Set<number>()
  await until('the bound has passed', async () => {
    const { status } = await replica.verify(token)
    seen.add(status)
    return status !== 200
  })
  await world.admin.query('alter table assay.gone rename to replicas')
  expect([...seen].sort()).toEqual([200, 503])
  await until('it polls again', async () => (await replica.verify(token)).status === 200)
})
