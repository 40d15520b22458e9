import { afterAll, beforeAll, expect, test } from 'vitest'
import { changeCustomer, countsOf, type StoppedClock, stopClock, storedSession } from '../support/sessions.ts'
import {
  basic,
  type Customer,
  claimsOf,
  makeWorld,
  type Replica,
  SERVICE,
  type Tokens,
  type World,
} from '../support/world.ts'

const GATEWAY = basic(SERVICE.id, SERVICE.secret)
const MINUTE = 60_000
const HOUR = 60 * MINUTE
const TURNS = 50
const FLOODS = 6

let world: World
let clock: StoppedClock
let assay: Replica
let other: Replica
let customer: Customer

beforeAll(async () => {
  world = await makeWorld()
  assay = await world.replica()
  other = await world.replica()
  customer = await assay.signUp()
  clock = await stopClock(world, [assay, other])
})
afterAll(() => world.stop())

/** Places where the successor's access token may first be seen. */
const places: Record<string, (replica: Replica, token: string) => Promise<{ status: number }>> = {
  '/verify': (replica, token) => replica.verify(token),
  '/verify under a path': (replica, token) => replica.verify(token, '/verify/orders/7'),
  '/introspect': (replica, token) => replica.introspect(token),
  '/introspect/batch': (replica, token) =>
    replica.postJson('/introspect/batch', { tokens: [token] }, { Authorization: GATEWAY }),
  '/introspect of the token itself': (replica, token) => replica.get('/introspect', token),
}

const next = async (refreshToken: string): Promise<Tokens> => (await assay.refresh(refreshToken)).json
const isConfirmed = async (id: string) => (await storedSession(world, id)).confirmed

for (const [place, see] of Object.entries(places))
  test(`an access token seen at ${place} shows that its client has the successor`, async () => {
    const first = await customer.session()
    const successor = await next(first.refresh_token)
    await assay.sessions.flush()
    expect(await isConfirmed(first.session_id)).toBe(false)
    expect((await see(assay, successor.access_token)).status).toBe(200)
    await assay.sessions.flush()
    expect(await isConfirmed(first.session_id)).toBe(true)
    await clock.advance(MINUTE)
    expect((await assay.refresh(first.refresh_token)).json.error).toBe('invalid_grant')
    expect(await countsOf(world, first.session_id)).toHaveProperty('session.reuse_detected', 1)
  })

test("an account's access token seen at its own endpoints shows that it has the successor", async () => {
  const { accessToken, refreshToken } = await assay.signUp()
  const { access_token } = await next(refreshToken)
  expect((await assay.get('/api/auth/me', access_token)).status).toBe(200)
  await assay.sessions.flush()
  expect(await isConfirmed(claimsOf(accessToken).sid)).toBe(true)
})

test('a confirmation is written within about a second', async () => {
  const { session_id, refresh_token } = await customer.session()
  await assay.verify((await next(refresh_token)).access_token)
  await expect.poll(() => isConfirmed(session_id)).toBe(true)
})

test('a token of the first generation confirms nothing: a lost first refresh can be retried', async () => {
  const first = await customer.session()
  const lost = await next(first.refresh_token)
  await assay.verify(first.access_token)
  await assay.sessions.flush()
  expect(await isConfirmed(first.session_id)).toBe(false)
  await clock.advance(MINUTE)
  expect((await next(first.refresh_token)).refresh_token).toBe(lost.refresh_token)
})

test('an access token of an earlier generation does not confirm that the client has the latest', async () => {
  const first = await customer.session()
  const second = await next(first.refresh_token)
  const lost = await next(second.refresh_token)
  await assay.verify(second.access_token)
  await assay.sessions.flush()
  expect(await isConfirmed(first.session_id)).toBe(false)
  await clock.advance(MINUTE)
  expect((await next(second.refresh_token)).refresh_token).toBe(lost.refresh_token)
})

test('a refused token confirms nothing', async () => {
  const alone = await assay.signUp()
  const first = await alone.session()
  const successor = await next(first.refresh_token)
  await changeCustomer(world, [assay, other], alone.id, `state = 'disabled'`)
  expect((await assay.verify(successor.access_token)).status).toBe(401)
  await assay.introspect(successor.access_token)
  await assay.sessions.flush()
  expect(await isConfirmed(first.session_id)).toBe(false)
})

test('the grace counts from the first sight of the successor, however often it is seen again', async () => {
  const first = await customer.session()
  const successor = await next(first.refresh_token)
  await clock.advance(MINUTE)
  await assay.verify(successor.access_token)
  await assay.sessions.flush()
  await clock.advance(9_000)
  for (const replica of [assay, other]) {
    await replica.verify(successor.access_token)
    await replica.sessions.flush()
  }
  // A slow tab, still within the grace.
  expect((await next(first.refresh_token)).refresh_token).toBe(successor.refresh_token)
  await clock.advance(2_000)
  expect((await assay.refresh(first.refresh_token)).json.error).toBe('invalid_grant')
})

test('the next rotation starts unconfirmed, even if the previous one was confirmed', async () => {
  const { refresh_token } = await customer.session()
  const second = await next(refresh_token)
  await assay.verify(second.access_token)
  await assay.sessions.flush()
  const lost = await next(second.refresh_token)
  await clock.advance(HOUR)
  expect((await next(second.refresh_token)).refresh_token).toBe(lost.refresh_token)
})

test('losing confirmations logs nobody out, and a thief is detected one rotation later', async () => {
  const first = await customer.session()
  const successor = await next(first.refresh_token)
  await losingConfirmations(async () => {
    await assay.verify(successor.access_token)
    await assay.sessions.flush()
  })
  expect(await isConfirmed(first.session_id)).toBe(false)
  await clock.advance(HOUR)
  expect((await next(first.refresh_token)).refresh_token).toBe(successor.refresh_token)
  expect((await assay.refresh(successor.refresh_token)).status).toBe(200)
  await clock.advance(MINUTE)
  expect((await assay.refresh(first.refresh_token)).json.error).toBe('invalid_grant')
  expect((await storedSession(world, first.session_id)).revoked).toBe(true)
})

test('a confirmation that the database could not write is written once it can', async () => {
  const { session_id, refresh_token } = await customer.session()
  const successor = await next(refresh_token)
  await losingConfirmations(async () => {
    await assay.verify(successor.access_token)
    await assay.sessions.flush()
  }, '53100')
  expect(await isConfirmed(session_id)).toBe(false)
  await assay.sessions.flush()
  expect(await isConfirmed(session_id)).toBe(true)
})

test('a late replay writes the confirmation that its successor was seen before', async () => {
  const first = await customer.session()
  const successor = await next(first.refresh_token)
  await clock.advance(MINUTE)
  await losingConfirmations(async () => {
    await assay.verify(successor.access_token)
    await assay.sessions.flush()
  }, '53100')
  await next(first.refresh_token)
  expect(await isConfirmed(first.session_id)).toBe(true)
})

/** The database refuses to write confirmations; with `53100` temporarily (its disk is full). */
async function losingConfirmations(act: () => Promise<void>, sqlstate = 'P0001') {
  await world.admin.query(`create function assay.lose() returns trigger language plpgsql
    as 'begin raise exception using errcode = ''${sqlstate}''; end'`)
  await world.admin.query(`create trigger lose before update of confirmed_at on assay.sessions
    for each row when (new.confirmed_at is not null) execute function assay.lose()`)
  await act()
  await world.admin.query('drop trigger lose on assay.sessions')
  await world.admin.query('drop function assay.lose()')
}

/** Actions of a thief with a refresh token before its owner refreshes. Each leaves a trace that the owner's refresh detects. */
const thefts: ((stolen: string) => Promise<Tokens>)[] = [
  async stolen => {
    const got = await next(stolen)
    await other.verify(got.access_token)
    return got
  },
  async stolen => {
    const got = await next(stolen)
    await assay.get('/introspect', got.access_token)
    return got
  },
  async stolen => next((await next(stolen)).refresh_token),
  async stolen => {
    const got = await next((await next(stolen)).refresh_token)
    await assay.verify(got.access_token)
    return got
  },
]

test('H35 a thief who uses a stolen token first is detected when the owner next refreshes', async () => {
  for (let turn = 0; turn < TURNS; turn++) {
    let own = await customer.session()
    for (let honest = 0; honest < turn % 7; honest++) own = await next(own.refresh_token)
    const stolen = await thefts[turn % thefts.length]!(own.refresh_token)
    for (const replica of [assay, other]) await replica.sessions.flush()
    await clock.advance(MINUTE)
    const found = await assay.refresh(own.refresh_token)
    expect([found.status, found.json.error]).toEqual([400, 'invalid_grant'])
    expect((await other.refresh(stolen.refresh_token)).json.error).toBe('invalid_grant')
    expect((await assay.verify(stolen.access_token)).status).toBe(401)
  }
})

/** Replays a used refresh token on twelve connections while `act` runs. */
async function beneathReplays(used: string, act: () => Promise<unknown>) {
  let over = false
  const connections = Array.from({ length: 12 }, async () => {
    while (!over) expect((await other.refresh(used)).status).toBe(200)
  })
  await act()
  over = true
  await Promise.all(connections)
}

test('H35 a thief who floods the stolen token while using its successor is detected when the owner next refreshes', async () => {
  for (let turn = 0; turn < FLOODS; turn++) {
    const own = await customer.session()
    const stolen = await next(own.refresh_token)
    await beneathReplays(own.refresh_token, async () => {
      await assay.verify(stolen.access_token)
      await assay.sessions.flush()
    })
    expect(await isConfirmed(own.session_id)).toBe(true)
    await clock.advance(MINUTE)
    expect((await assay.refresh(own.refresh_token)).json.error).toBe('invalid_grant')
    expect((await assay.verify(stolen.access_token)).status).toBe(401)
  }
})

test('H35 a thief within the grace gets the same successor, and is detected at the first later refresh', async () => {
  const { refresh_token: used, session_id } = await customer.session()
  const own = await next(used)
  await assay.verify(own.access_token)
  await assay.sessions.flush()
  await clock.advance(9_000)
  const stolen = await next(used)
  expect(stolen.refresh_token).toBe(own.refresh_token)
  await clock.advance(MINUTE)
  await assay.verify((await next(own.refresh_token)).access_token)
  await assay.sessions.flush()
  await clock.advance(MINUTE)
  expect((await assay.refresh(stolen.refresh_token)).json.error).toBe('invalid_grant')
  expect((await storedSession(world, session_id)).revoked).toBe(true)
})

test('H35 a thief who refreshes in step for fifty turns is detected when the owner next refreshes', async () => {
  const own = await customer.session()
  let stolen = own
  for (let turn = 0; turn < TURNS; turn++) {
    stolen = await next(stolen.refresh_token)
    expect((await assay.verify(stolen.access_token)).status).toBe(200)
    await clock.advance(MINUTE)
  }
  expect((await assay.refresh(own.refresh_token)).json.error).toBe('invalid_grant')
  expect((await assay.verify(stolen.access_token)).status).toBe(401)
  expect((await assay.refresh(stolen.refresh_token)).json.error).toBe('invalid_grant')
})
