import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest'
import { poll, type RevocationRow } from '../../db/queries/change-feed.ts'
import { hear, holding, named, POLL, replicaOn } from '../support/holding.ts'
import { publishCustomer } from '../support/plant.ts'
import { until } from '../support/process.ts'
import { bearer, type Customer, claimsOf, makeWorld, type Replica, type World } from '../support/world.ts'

const N = 500
let world: World
let here: Replica
let customer: Customer

beforeAll(async () => {
  world = await makeWorld({ MAX_STALENESS: `${N}ms` })
  here = await world.replica()
  customer = await here.signUp()
})
afterAll(() => world.stop())

const revoke = (token: string, form: Record<string, string> = {}) =>
  here.postForm('/revoke', { token, ...form }, bearer(customer.apiKey))

/** Moves the database's clock and waits until every replica of the world has seen it. */
async function advance(milliseconds: number) {
  await world.advance(milliseconds)
  await hear(here)
}

const newToken = async (): Promise<string> => (await customer.issue()).json.access_token

/** A second replica that has just polled and whose next poll is held back. */
async function deafReplica(settings = {}) {
  const database = holding(world.db)
  const there = await replicaOn(world, database.db, { MAX_STALENESS: `${N}ms`, ...settings })
  const deafen = async () => {
    const held = database.hold(POLL)
    const polled = there.changeFeed.poll()
    await held.has
    return async () => {
      held.release()
      await polled
    }
  }
  return { there, database, deafen }
}

test('a revocation is unknown on another replica until its poll, and applied from then on', async () => {
  const { there, deafen } = await deafReplica({ MAX_STALENESS: '5m' })
  const token = await newToken()
  const undeafen = await deafen()
  await revoke(token)
  expect((await here.verify(token)).status).toBe(401)
  expect((await there.verify(token)).status).toBe(200)
  await undeafen()
  await hear(there)
  expect((await there.verify(token)).status).toBe(401)
})

test('wait=all answers once the other replica has applied the revocation', async () => {
  const { there, deafen } = await deafReplica({ MAX_STALENESS: '5m' })
  const token = await newToken()
  const undeafen = await deafen()
  let answered = false
  const revoked = revoke(token, { wait: 'all' }).then(answer => {
    answered = true
    return answer
  })
  const { polls } = here.changeFeed.counts
  await until('the replica that acted has looked around', () => here.changeFeed.counts.polls > polls + 5)
  expect(answered).toBe(false)
  await undeafen()
  expect((await revoked).status).toBe(200)
  expect((await there.verify(token)).status).toBe(401)
})

test('wait=all answers when a silent replica’s own bound has passed, so that it accepts nothing', async () => {
  const { there, deafen } = await deafReplica({ MAX_STALENESS: '1500ms' })
  const token = await newToken()
  const undeafen = await deafen()
  expect((await there.verify(token)).status).toBe(200)
  expect((await revoke(token, { wait: 'all' })).status).toBe(200)
  expect((await there.verify(token)).status).toBe(503)
  await undeafen()
})

test('wait=all also holds for a revocation that is repeated because its first answer was lost', async () => {
  const { there, deafen } = await deafReplica({ MAX_STALENESS: '1s' })
  const { access_token: token, refresh_token } = await customer.session()
  const other = await newToken()
  const undeafen = await deafen()
  await Promise.all([revoke(refresh_token), revoke(other)])
  await Promise.all([revoke(refresh_token, { wait: 'all' }), revoke(other, { wait: 'all' })])
  const statuses = [(await there.verify(token)).status, (await there.verify(other)).status]
  await undeafen()
  expect(statuses).not.toContain(200)
})

test('a replica that has not polled within its own bound is not waited for', async () => {
  const { there, deafen } = await deafReplica({ MAX_STALENESS: '20s' })
  const token = await newToken()
  const undeafen = await deafen()
  there.clock.ahead.monotonic += 35_000
  await advance(35_000)
  const began = performance.now()
  expect((await revoke(token, { wait: 'all' })).status).toBe(200)
  expect(performance.now() - began).toBeLessThan(5_000)
  expect((await there.verify(token)).status).toBe(503)
  await undeafen()
})

test('the others do not wait for a stopped replica', async () => {
  const replicas = async () =>
    (await world.admin.query<{ id: string }>('select id from assay.replicas')).map(({ id }) => id)
  const before = await replicas()
  const leaving = await replicaOn(world, world.db)
  const [id] = (await replicas()).filter(one => !before.includes(one))
  expect(id).toBeDefined()
  await leaving.stop()
  expect(await replicas()).not.toContain(id)
})

test('24 concurrent writers leave no gap in the changes that a poller sees', async () => {
  const there = await world.replica()
  const connection = world.db.connection(5_000)
  const answers = await Promise.all(Array.from({ length: 96 }, () => customer.session()))
  const [start] = await poll(connection, {
    replica: 'poller',
    version: '0',
    applied: 0,
    maxStaleness: N,
    write: true,
  })
  const seen: RevocationRow[] = []
  let applied = start!.seq
  let writing = true
  const polling = (async () => {
    while (writing || seen.length < answers.length) {
      const [answer] = await poll(connection, {
        replica: 'poller',
        version: '0',
        applied,
        maxStaleness: N,
        write: true,
      })
      // The embedded database answers before anything else runs.
      await new Promise(setImmediate)
      const rows: RevocationRow[] = JSON.parse(answer!.rows ?? '[]')
      // A reader that sees the counter at n has seen every number up to n.
      expect(rows.length).toBe(answer!.seq - applied)
      seen.push(...rows)
      applied = answer!.seq
    }
  })()
  const write = async (writer: number) => {
    for (const { access_token, refresh_token } of answers.slice(writer * 4, writer * 4 + 4)) {
      const token = writer % 2 ? access_token : refresh_token
      const at = writer % 3 ? here : there
      const { status } = await at.postForm('/revoke', { token }, bearer(customer.apiKey))
      expect(status).toBe(200)
    }
  }
  await Promise.all(Array.from({ length: 24 }, (_, writer) => write(writer)))
  writing = false
  await polling
  await connection.close()
  await world.admin.query(`delete from assay.replicas where id = 'poller'`)
  expect(seen.map(([seq]) => seq)).toEqual(answers.map((_, i) => start!.seq + 1 + i))
})

/** A revocation that only a full reload finds: its number is below the one that every replica has applied. */
async function plantUnseen(token: string) {
  const [row] = await world.admin.query<{ seq: number }>(
    `with pushed as (update assay.change_feed set seq = seq + 2 returning seq)
    select seq from pushed`,
  )
  await hear(here)
  await world.admin.query(
    `insert into assay.revocations (seq, kind, customer_id, key, dead_after)
    values ($1, 'token', $2, $3, assay.now() + interval '1 day')`,
    [row!.seq - 1, customer.id, claimsOf(token).jti],
  )
  await hear(here)
  expect((await here.verify(token)).status).toBe(200)
}

/** The reloads in the log. */
const reloadsIn = (lines: string[]) =>
  lines
    .map(line => JSON.parse(line))
    .filter(({ newTimeline }) => newTimeline !== undefined)
    .map(({ level, reason, lost, committed, found }) => ({ level, reason, lost, committed, found }))

test('a replica notices that the database lost its own change, even before a poll has returned it', async () => {
  const { there, deafen } = await deafReplica({ MAX_STALENESS: '5m' })
  const token = await newToken()
  const undeafen = await deafen()
  const revoked = there.post('/revoke', { token }, bearer(customer.apiKey))
  expect((await revoked).status).toBe(200)
  await undeafen()
  // The poll was sent before the act, so an answer without it is not a loss.
  expect(there.changeFeed.era).toBe(0)
  expect((await there.verify(token)).status).toBe(401)
  await world.admin.query(
    `with back as (update assay.change_feed set seq = seq - 1 returning seq)
    delete from assay.revocations r using back where r.seq > back.seq`,
  )
  await hear(there, here)
  expect(there.changeFeed.reloads.get('commits_lost')).toBe(1)
})

test('a counter that went back makes a replica reload everything', async () => {
  const token = await newToken()
  await plantUnseen(token)
  const [lines, before] = [here.lines.length, here.changeFeed.reloads.get('commits_lost')!]
  await world.admin.query('update assay.change_feed set seq = seq - 1')
  await hear(here)
  expect(here.changeFeed.reloads.get('commits_lost')).toBe(before + 1)
  expect(reloadsIn(here.lines.slice(lines))).toEqual([
    {
      level: 50,
      reason: 'commits_lost',
      lost: 1,
      committed: expect.any(Number),
      found: expect.any(Number),
    },
  ])
  expect((await here.verify(token)).status).toBe(401)
  expect((await here.verify(await newToken())).status).toBe(200)
})

test('another timeline makes a replica reload everything, and earlier reads are not used', async () => {
  const database = holding(world.db)
  const there = await replicaOn(world, database.db, { MAX_STALENESS: '5m' })
  const token = await newToken()
  expect((await there.verify(token)).status).toBe(200)
  await world.admin.query(`update assay.customers set state = 'disabled' where id = $1`, [customer.id])
  database.otherTimeline(/./)
  await hear(there)
  expect(there.changeFeed.reloads.get('timeline')).toBe(1)
  expect((await there.verify(token)).status).toBe(401)
  await world.admin.query(`update assay.customers set state = 'active' where id = $1`, [customer.id])
  await publishCustomer(world, customer.id, [here, there])
  expect((await there.verify(token)).status).toBe(200)
})

test('a promoted server that reuses the number of a lost change for another one is reported as a loss', async () => {
  const database = holding(world.db)
  const there = await replicaOn(world, database.db, { MAX_STALENESS: '5m' })
  const losses = () => there.changeFeed.reloads.get('commits_lost')
  const token = await newToken()
  expect((await here.postForm('/revoke', { token }, bearer(customer.apiKey))).status).toBe(200)
  await hear(there)
  // The same changes, so no loss.
  database.otherTimeline(/./)
  await hear(there)
  expect([there.changeFeed.reloads.get('timeline'), losses()]).toEqual([1, 0])
  await world.admin.query(
    `update assay.revocations set key = 'of another token' where seq = (select max(seq) from assay.revocations)`,
  )
  database.otherTimeline(undefined)
  await hear(there)
  expect([there.changeFeed.reloads.get('timeline'), losses()]).toEqual([2, 1])
  await hear(there)
  expect(losses()).toBe(1)
})

test('a restart of the database server makes a replica reload everything, without reporting a loss', async () => {
  const database = holding(world.db)
  const there = await replicaOn(world, database.db, { MAX_STALENESS: '5m' })
  const token = await newToken()
  expect((await there.verify(token)).status).toBe(200)
  const { era } = there.changeFeed
  await world.admin.query(`update assay.customers set state = 'disabled' where id = $1`, [customer.id])
  database.restarted()
  await hear(there)
  expect(there.changeFeed.era).toBe(era + 1)
  expect(there.changeFeed.reloads.get('restart')).toBe(1)
  expect((await there.verify(token)).status).toBe(401)
  await world.admin.query(`update assay.customers set state = 'active' where id = $1`, [customer.id])
  await publishCustomer(world, customer.id, [here, there])
  expect((await there.verify(token)).status).toBe(200)
})

test('after an hour without a poll everything is reloaded, after less only new changes', async () => {
  const token = (await customer.issue({ expires_in: 900 })).json.access_token
  const { era } = here.changeFeed
  await advance(3_500_000)
  expect(here.changeFeed.era).toBe(era)
  await advance(3_700_000)
  expect(here.changeFeed.era).toBe(era + 1)
  expect(here.changeFeed.reloads.get('gap')).toBe(1)
  expect((await here.verify(token)).status).toBe(401)
})

test('a revocation is dropped from memory once its token has expired, and not before', async () => {
  await advance(3_000_000)
  const before = here.revocations.size
  const token = (await customer.issue({ expires_in: 600 })).json.access_token
  await revoke(token)
  await hear(here)
  expect(here.revocations.size).toBe(before + 1)
  await advance(595_000)
  expect(here.revocations.size).toBe(before + 1)
  await advance(70_000)
  expect(here.revocations.size).toBeLessThanOrEqual(before)
})

test('setting a fast database clock back does not make a revoked token valid again', async () => {
  const token = (await customer.issue({ expires_in: 900 })).json.access_token
  await revoke(token)
  await advance(3_000_000)
  await advance(-3_000_000)
  expect((await here.verify(await newToken())).status).toBe(200)
  expect((await here.verify(token)).status).toBe(401)
})

test('an unknown kind of change from a newer version makes the state unknown instead of being ignored', async () => {
  const own = await makeWorld({ MAX_STALENESS: `${N}ms` })
  onTestFinished(() => own.stop())
  const replica = await own.replica()
  const { accessToken } = await replica.signUp()
  await own.admin.query('alter table assay.revocations drop constraint revocations_kind')
  await own.admin.query(`with numbered as (update assay.change_feed set seq = seq + 1 returning seq)
    insert into assay.revocations (seq, kind, customer_id, dead_after)
    select seq, 'country', 'DE', assay.now() + interval '1 day' from numbered`)
  await expect(replica.changeFeed.poll()).rejects.toThrow()
  expect(replica.lines.join('')).toContain('does not know changes of kind country')
  replica.clock.skip(N)
  expect((await replica.verify(accessToken)).status).toBe(503)
})

/** Revocations of subjects without tokens, with names of the given length. */
const plantMany = (own: World, many: number, length: number) =>
  own.admin.query(
    `with numbers as (update assay.change_feed set seq = seq + $1::int returning seq)
    insert into assay.revocations (seq, kind, customer_id, key, epoch, dead_after)
    select seq - $1::int + i, 'subject', 'aaaaaaaaaaaaaaaa', rpad(i::text, $2::int, 'ł'), 1, assay.now() + interval '1 hour'
    from numbers, generate_series(1, $1::int) as i`,
    [many, length],
  )

test('many revocations are read in pages of 256 KiB, and a slow page does not time out the poll', async () => {
  const own = await makeWorld({ MAX_STALENESS: '500ms' })
  onTestFinished(() => own.stop())
  const database = holding(own.db)
  const first = await own.replica()
  const { access_token: token } = await (await first.signUp()).session()
  await plantMany(own, 9_000, 255)
  const { jti, client_id } = claimsOf(token)
  await own.admin.query(
    `with numbers as (update assay.change_feed set seq = seq + 1 returning seq)
    insert into assay.revocations (seq, kind, customer_id, key, dead_after)
    select seq, 'token', $1, $2, assay.now() + interval '1 hour' from numbers`,
    [client_id, jti],
  )
  const page = database.hold(named('loadPage'))
  const starting = replicaOn(own, database.db, { MAX_STALENESS: '500ms' })
  await page.has
  // Longer than the timeout of a poll.
  await new Promise(resolve => setTimeout(resolve, 1_000))
  page.release()
  const replica = await starting
  expect(replica.revocations.size).toBe(9_001)
  // Each row has about 600 bytes.
  expect(database.asked(named('loadPage'))).toBeGreaterThan(15)
  expect(database.asked(named('loadPage'))).toBeLessThan(30)
  await hear(first)
  for (const one of [first, replica]) expect((await one.verify(token)).status).toBe(401)
})

test('a page from another timeline makes a replica reload everything', async () => {
  const own = await makeWorld()
  onTestFinished(() => own.stop())
  const database = holding(own.db)
  const replica = await replicaOn(own, database.db)
  await plantMany(own, 9_000, 20)
  database.otherTimeline(named('loadPage'))
  const page = database.hold(named('loadPage'))
  const polled = replica.changeFeed.poll()
  await page.has
  database.otherTimeline(undefined)
  page.release()
  await polled
  expect(replica.changeFeed.reloads.get('timeline')).toBe(1)
  expect(replica.revocations.size).toBe(9_000)
})

/** Counts writes to the rows of the replicas. */
async function countWrites() {
  await world.admin.query('create table public.writes (id text)')
  await world.admin.query(`create function public.count_write() returns trigger security definer language plpgsql
    as $$ begin insert into public.writes values (new.id); return null; end $$`)
  await world.admin.query(`create trigger count_write after insert or update on assay.replicas
    for each row execute function public.count_write()`)
  onTestFinished(async () => {
    await world.admin.query('drop function public.count_write cascade')
    await world.admin.query('drop table public.writes')
  })
  return async (id: string) =>
    (await world.admin.query(`select from public.writes where id = '${id}'`)).length
}

const rowOf = async ({ replica }: { replica: string }) => {
  const rows = await world.admin.query<{ applied: number; seen: number }>(
    `select applied, extract(epoch from seen_at)::float8 as seen from assay.replicas where id = '${replica}'`,
  )
  return rows[0]!
}

test('frequent polls leave at most ten dead rows a second', async () => {
  const { there } = await deafReplica({ MAX_STALENESS: '5m' })
  const writes = await countWrites()
  there.clock.ahead.monotonic += 600
  const began = performance.now()
  for (let change = 0; change < 60; change++) {
    await world.admin.query('update assay.change_feed set seq = seq + 1')
    await there.changeFeed.poll()
  }
  const took = performance.now() - began
  const wrote = await writes(there.replica)
  expect(wrote).toBeGreaterThan(0)
  expect(wrote).toBeLessThanOrEqual(took / 100 + 2)
})

test('a change read after a notification is reported before the next timed poll', async () => {
  const { there } = await deafReplica({ MAX_STALENESS: '5m' })
  const delays: number[] = []
  for (let i = 0; i < 9; i++) {
    await revoke(await newToken())
    const { seq } = (await world.admin.query<{ seq: number }>('select seq from assay.change_feed'))[0]!
    const began = performance.now()
    there.changeFeed.wake()
    await until('it has reported', async () => (await rowOf(there)).applied >= seq)
    delays.push(performance.now() - began)
  }
  // With the timer alone this would take 500 to 1,000 ms: one poll reads the change, and the next reports it.
  expect(delays.toSorted((a, b) => a - b)[4]).toBeLessThan(400)
})

test('a poll that does not write the row does not extend how long the replica may answer', async () => {
  const { there, database } = await deafReplica({ MAX_STALENESS: '5s' })
  const token = await newToken()
  there.clock.ahead.monotonic += 600
  await there.changeFeed.poll()
  const written = await rowOf(there)
  there.clock.ahead.monotonic += 90
  await there.changeFeed.poll()
  expect(await rowOf(there)).toEqual(written)
  const held = database.hold(POLL)
  const polled = there.changeFeed.poll()
  await held.has
  expect((await there.verify(token)).status).toBe(200)
  there.clock.ahead.monotonic += 4_920
  expect((await there.verify(token)).status).toBe(503)
  held.release()
  await polled
})
