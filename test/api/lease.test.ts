import { afterAll, beforeAll, expect, test } from 'vitest'
import { hear, holding, POLL, replicaOn } from '../support/holding.ts'
import { mostPolls, repeat } from '../support/repeat.ts'
import {
  type Answer,
  bearer,
  type Customer,
  claimsOf,
  makeWorld,
  type Replica,
  type World,
} from '../support/world.ts'

const HOUR = 3_600_000
let world: World
let here: Replica
let customer: Customer

beforeAll(async () => {
  world = await makeWorld()
  here = await world.replica()
  customer = await here.signUp()
})
afterAll(() => world.stop())

const newToken = async (body = {}): Promise<string> => (await customer.issue(body)).json.access_token

const databaseNow = async () => {
  const [row] = await world.admin.query<{ now: number }>(
    'select (extract(epoch from assay.now()) * 1000)::float8 as now',
  )
  return row!.now
}

/** A replica whose database can stop answering, and that has already verified the token. */
async function silenceable(token: string, settings = {}) {
  const database = holding(world.db)
  const replica = await replicaOn(world, database.db, settings)
  const silence = async () => {
    const held = database.hold(POLL)
    void replica.changeFeed.poll()
    await held.has
    return held
  }
  expect((await replica.verify(token)).status).toBe(200)
  return { replica, silence, database }
}

/** Expects 503 with an error that says the state is unknown, and a Retry-After. */
async function expectUnknown(ask: () => Promise<Answer>) {
  const began = performance.now()
  const { status, headers } = await ask()
  expect(status).toBe(503)
  expect(headers.get('retry-after')).toBe('1')
  expect(performance.now() - began).toBeLessThan(1_000)
}

test('requests that need a poll share one every 20 ms across all callers', async () => {
  const token = await newToken()
  const { polls } = here.changeFeed.counts
  const took = await repeat(n =>
    n % 2 === 0
      ? here.get('/introspect', token, { 'X-Consistency': 'strict' })
      : here.postForm('/revoke?wait=all', { token: 'x' }),
  )
  expect(here.changeFeed.counts.polls - polls).toBeLessThanOrEqual(mostPolls(took))
})

test('while the database is silent, tokens are valid until the bound and unknown after it; garbage is still refused', async () => {
  const token = await newToken()
  const { replica, silence } = await silenceable(token, { MAX_STALENESS: '5s' })
  const held = await silence()
  replica.clock.ahead.monotonic += 4_000
  expect((await replica.verify(token)).status).toBe(200)
  replica.clock.ahead.monotonic += 1_100
  await expectUnknown(() => replica.verify(token))
  await expectUnknown(() => replica.request('/introspect', { headers: bearer(token) }))
  await expectUnknown(() => replica.request('/api/auth/me', { headers: bearer(token) }))
  await expectUnknown(() => replica.post('/revoke', { token }, bearer(customer.apiKey)))
  expect((await replica.verify('garbage')).status).toBe(401)
  expect((await replica.verify(`${token.slice(0, -2)}.x`)).status).toBe(401)
  expect((await replica.request('/verify')).status).toBe(401)
  held.release()
  await hear(replica)
  expect((await replica.verify(token)).status).toBe(200)
})

test('/readyz changes to 503 and back with /verify, and sends nothing to a silent database', async () => {
  const token = await newToken()
  const { replica, silence, database } = await silenceable(token, { MAX_STALENESS: '5m' })
  const ready = async () => {
    const { status, json } = await replica.request('/readyz')
    return [status, json.checks.state, json.checks.migrations]
  }
  const check = database.hold(/max\(created_at\)/)
  expect(await ready()).toEqual([200, 'ok', 'ok'])
  // After this check of the migrations has ended, another one is due a second later.
  await check.has
  check.release()
  await hear(replica)
  const held = await silence()
  replica.clock.ahead.monotonic += 200_000
  expect((await replica.verify(token)).status).toBe(200)
  const sent = database.total()
  replica.clock.ahead.monotonic += 110_000
  for (let i = 0; i < 20; i++) {
    expect(await ready()).toEqual([503, 'failed', 'unknown'])
    replica.clock.ahead.monotonic += 2_000
  }
  expect(database.total()).toBe(sent)
  await expectUnknown(() => replica.verify(token))
  held.release()
  await hear(replica)
  expect((await replica.verify(token)).status).toBe(200)
  expect(await ready()).toEqual([200, 'ok', 'ok'])
})

test.each(['monotonic', 'wall'] as const)('the %s clock alone is enough to end a lease', async name => {
  const token = await newToken()
  const { replica, silence } = await silenceable(token)
  const held = await silence()
  replica.clock.ahead[name] += 5_000
  await expectUnknown(() => replica.verify(token))
  held.release()
  await hear(replica)
  expect((await replica.verify(token)).status).toBe(200)
})

test('the result of a late poll counts from when it was sent, not from when it arrived', async () => {
  const token = await newToken()
  const { replica, silence } = await silenceable(token)
  const held = await silence()
  await here.postForm('/revoke', { token }, bearer(customer.apiKey))
  replica.clock.ahead.monotonic += 4_900
  const next = await silenceNext()
  expect((await replica.verify(token)).status).not.toBe(401)
  replica.clock.ahead.monotonic += 200
  await expectUnknown(() => replica.verify(token))
  next.release()
  await hear(replica)
  expect((await replica.verify(token)).status).toBe(401)

  /** Releases the late answer and holds the next one. */
  async function silenceNext() {
    const polling = replica.changeFeed.poll()
    held.release()
    await polling
    return silence()
  }
})

test.each([HOUR, -HOUR])(
  'H28 a wall clock that is %i ms off changes no answer for longer than a poll',
  async off => {
    const token = await newToken()
    const { replica, silence } = await silenceable(token)
    replica.clock.ahead.wall += off
    expect((await replica.verify(token)).status).toBe(200)
    await here.postForm('/revoke', { token }, bearer(customer.apiKey))
    await hear(replica)
    expect((await replica.verify(token)).status).toBe(401)
    const other = await newToken()
    expect((await replica.verify(other)).status).toBe(200)
    const held = await silence()
    replica.clock.ahead.monotonic += 5_000
    await expectUnknown(() => replica.verify(other))
    held.release()
  },
)

test('H28 a wall clock that jumps while the database is silent can only cause 503s, not accept a token', async () => {
  const token = await newToken()
  const { replica, silence } = await silenceable(token)
  const held = await silence()
  replica.clock.ahead.wall -= HOUR
  expect((await replica.verify(token)).status).toBe(200)
  replica.clock.ahead.monotonic += 5_000
  await expectUnknown(() => replica.verify(token))
  replica.clock.ahead.wall += 3 * HOUR
  await expectUnknown(() => replica.verify(token))
  held.release()
  await hear(replica)
  expect((await replica.verify(token)).status).toBe(200)
})

test('times in a token come from the database, not from the replica’s own clock', async () => {
  const { replica } = await silenceable(await newToken())
  replica.clock.ahead.wall += HOUR
  here.clock.setWall(-HOUR)
  await world.advance(86_400_000)
  await hear(here, replica)
  const before = Math.floor((await databaseNow()) / 1000)
  for (const ask of [here.request, replica.request]) {
    const { json } = await ask('/issue', {
      method: 'POST',
      headers: { ...bearer(customer.apiKey), 'Content-Type': 'application/json' },
      body: JSON.stringify({ expires_in: 60 }),
    })
    const { iat, exp } = claimsOf(json.access_token)
    expect(exp - iat).toBe(60)
    expect(iat - before).toBeGreaterThanOrEqual(0)
    expect(iat - before).toBeLessThan(10)
    expect((await replica.verify(json.access_token)).status).toBe(200)
  }
  here.clock.setWall(HOUR)
})

test('H21 a token expires at its exp by the database’s clock (CVE-2026-107719)', async () => {
  const token = await newToken({ expires_in: 60 })
  const left = claimsOf(token).exp * 1000 - (await databaseNow())
  await world.advance(left - 5_000)
  await hear(here)
  expect((await here.verify(token)).status).toBe(200)
  await world.advance(5_000)
  await hear(here)
  expect((await here.verify(token)).status).toBe(401)
})

test('H21 a token expires on time on a replica that has not polled since', async () => {
  const token = await newToken({ expires_in: 60 })
  const { replica, silence } = await silenceable(token, { MAX_STALENESS: '5m' })
  const held = await silence()
  replica.clock.ahead.monotonic += 50_000
  expect((await replica.verify(token)).status).toBe(200)
  replica.clock.ahead.monotonic += 10_000
  expect((await replica.verify(token)).status).toBe(401)
  held.release()
})
