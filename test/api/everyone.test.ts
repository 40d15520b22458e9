import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { hear, holding, named, replicaOn } from '../support/holding.ts'
import { logIn, stopClock } from '../support/plant.ts'
import {
  ADMIN_TOKEN,
  ALICE,
  basic,
  bearer,
  type Customer,
  claimsOf,
  makeWorld,
  READER,
  type Replica,
  SERVICE,
  type World,
} from '../support/world.ts'

/** One act that ends every token and session of every customer: what it ends, what it keeps, and whom it affects. */

const DAY = 86_400_000

let world: World
let here: Replica
let there: Replica

beforeAll(async () => {
  world = await makeWorld({ MAX_ACCESS_TOKEN_TTL: '24h' })
  here = await world.replica()
  there = await world.replica()
})
afterAll(() => world.stop())

const revoke = (body: object = { everyone: true }, token = ALICE, query = '') =>
  here.postJson(`/admin/revoke${query}`, body, bearer(token))

async function revokeEveryone() {
  expect((await revoke(undefined, undefined, '?wait=all')).status).toBe(204)
}

/** A customer with each kind of token, its own and those of its users. */
async function established() {
  const customer = await here.signUp()
  const session = await customer.session()
  const { access_token: alone } = (await customer.issue({ subject: 'user-2' })).json
  const own = await logIn(here, customer)
  const access = [customer.accessToken, session.access_token, alone, own.access_token]
  const refresh = [customer.refreshToken, session.refresh_token, own.refresh_token]
  return { customer, access, refresh }
}

async function expectLive({ customer, access, refresh }: Awaited<ReturnType<typeof established>>) {
  for (const replica of [here, there])
    for (const token of access) expect((await replica.verify(token)).status).toBe(200)
  for (const token of refresh) {
    expect((await there.introspect(token, basic(customer.id, customer.apiKey))).json.active).toBe(true)
    expect((await there.refresh(token)).status).toBe(200)
  }
}

async function expectEnded({ customer, access, refresh }: Awaited<ReturnType<typeof established>>) {
  for (const replica of [here, there]) {
    for (const token of access) {
      expect((await replica.verify(token)).status).toBe(401)
      expect((await replica.introspect(token)).text).toBe('{"active":false}')
      expect((await replica.get('/api/auth/me', token)).status).toBe(401)
    }
    for (const token of refresh) {
      const { text } = await replica.introspect(token, basic(customer.id, customer.apiKey))
      expect(text).toBe('{"active":false}')
      expect(await replica.refresh(token)).toMatchObject({ status: 400, json: { error: 'invalid_grant' } })
    }
  }
  expect((await here.get('/api/sessions', customer.apiKey)).json.sessions).toEqual([])
}

test('revoking everything ends every token and session of every customer, on every replica', async () => {
  const customers = [await established(), await established(), await established()]
  // Each record is still in memory on both replicas.
  for (const replica of [here, there])
    for (const { access } of customers) expect((await replica.verify(access[0]!)).status).toBe(200)
  await revokeEveryone()
  for (const one of customers) await expectEnded(one)
})

test('API keys, passwords and secrets remain valid: their owners can continue at once', async () => {
  const { customer } = await established()
  const server = (
    await here.postJson('/admin/services', { name: 'orders', may: ['introspect'] }, bearer(ALICE))
  ).json
  await revokeEveryone()
  const { email, password, apiKey } = customer
  for (const replica of [here, there]) {
    const issued = (await replica.postJson('/issue', { subject: 'user-1', refresh: true }, bearer(apiKey)))
      .json
    const own = await logIn(replica, { email, password })
    const plain = (await replica.postJson('/issue', {}, bearer(apiKey))).json
    await expectLive({
      customer,
      access: [issued.access_token, own.access_token, plain.access_token],
      refresh: [issued.refresh_token, own.refresh_token],
    })
    const asked = await replica.postForm(
      '/introspect',
      { token: plain.access_token },
      bearer(server.credential),
    )
    expect(asked.json.active).toBe(true)
  }
  await expectLive(await established())
})

test('of tokens issued in the same second, only those issued afterwards stay valid', async () => {
  const customer = await here.signUp()
  await stopClock(world, new Date(Math.ceil(Date.now() / 1000) * 1000), [here, there])
  const before = await customer.session()
  await revokeEveryone()
  const after = await customer.session()
  expect(claimsOf(after.access_token).iat).toBe(claimsOf(before.access_token).iat)
  for (const replica of [here, there]) {
    expect((await replica.verify(before.access_token)).status).toBe(401)
    expect((await replica.verify(after.access_token)).status).toBe(200)
  }
  expect((await there.refresh(before.refresh_token)).status).toBe(400)
  expect((await there.refresh(after.refresh_token)).status).toBe(200)
  await world.advance(0)
})

test('a token issued during the race is already revoked', async () => {
  const customer = await here.signUp()
  const database = holding(world.db)
  const slow = await replicaOn(world, database.db)
  const held = database.hold(named('insertSessions'))
  const issuing = slow.request('/issue', {
    method: 'POST',
    headers: { ...bearer(customer.apiKey), 'Content-Type': 'application/json' },
    body: JSON.stringify({ subject: 'user-1', refresh: true }),
  })
  await held.has
  await revokeEveryone()
  held.release()
  const { status, json } = await issuing
  expect(status).toBe(200)
  await hear(slow)
  for (const replica of [here, there, slow])
    expect((await replica.verify(json.access_token)).status).toBe(401)
  expect((await here.refresh(json.refresh_token)).status).toBe(400)
})

test('it ends what was issued since the last time, and narrower revocations still count afterwards', async () => {
  await revokeEveryone()
  const between = await established()
  await revokeEveryone()
  await expectEnded(between)
  const customer = await here.signUp()
  const [bySubject, byCustomer] = [await customer.session(), await customer.session({ subject: 'user-2' })]
  const at = (more: string, body = {}) =>
    here.postJson(`/admin/customers/${customer.id}${more}`, body, bearer(ALICE))
  await at('/subjects/revoke?wait=all', { subject: 'user-1' })
  expect((await there.verify(bySubject.access_token)).status).toBe(401)
  expect((await there.verify(byCustomer.access_token)).status).toBe(200)
  await at('/revoke?wait=all')
  expect((await there.verify(byCustomer.access_token)).status).toBe(401)
  const { access_token } = await customer.session()
  expect((await there.verify(access_token)).status).toBe(200)
})

test('a retry under an earlier Idempotency-Key does not restore its session', async () => {
  const customer = await here.signUp()
  const key = { 'Idempotency-Key': 'from-before' }
  const body = { subject: 'user-1', refresh: true }
  await customer.issue(body, key)
  await revokeEveryone()
  expect(await customer.issue(body, key)).toMatchObject({ status: 409, json: { error: 'conflict' } })
})

test('replicas that start later know it for as long as an earlier token could live, and longer', async () => {
  const own = await makeWorld({ MAX_ACCESS_TOKEN_TTL: '24h', LOG_LEVEL: 'error' })
  try {
    const first = await own.replica()
    const customer = await first.signUp()
    const { access_token, refresh_token } = await customer.session({ expires_in: 86_400 })
    const headers = bearer(ADMIN_TOKEN)
    const known = async () =>
      /^assay_revocations (\d+)$/m.exec((await first.get('/metrics', ADMIN_TOKEN)).text)?.[1]
    expect((await first.postJson('/admin/revoke', { everyone: true }, headers)).status).toBe(204)
    expect(await known()).toBe('1')
    expect((await (await own.replica()).verify(access_token)).status).toBe(401)

    await own.advance(DAY - 60_000)
    expect(claimsOf(access_token).exp * 1000).toBeGreaterThan(Date.now() + DAY - 60_000)
    const late = await own.replica()
    expect((await late.verify(access_token)).status).toBe(401)

    // The steps are short enough that no replica reloads everything.
    expect(await known()).toBe('1')
    for (let steps = 0; steps < 2; steps++) {
      await own.advance(50 * 60_000)
      expect(await known()).toBe('0')
    }
    await own.maintain()
    expect(await own.admin.query('select 1 from assay.revocations')).toEqual([])
    const later = await own.replica()
    expect((await later.refresh(refresh_token)).json.error).toBe('invalid_grant')
    const again = await customer.session()
    expect((await later.verify(again.access_token)).status).toBe(200)
    expect((await later.refresh(again.refresh_token)).status).toBe(200)
  } finally {
    await own.stop()
  }
})

test('why such a token is refused is told, to operators and services', async () => {
  const customer = await here.signUp()
  const { access_token, refresh_token } = await customer.session()
  const ended = await customer.session()
  await here.postForm('/revoke', { token: ended.refresh_token })
  await revokeEveryone()
  const explain = async (token: string) =>
    (await there.postJson('/admin/explain', { token }, bearer(READER))).json
  expect(await explain(access_token)).toMatchObject({
    active: false,
    reason: 'everyone_revoked',
    token: { subject: 'user-1' },
    session: { state: 'ended' },
  })
  const server = { Authorization: basic(SERVICE.id, SERVICE.secret) }
  const toServer = await there.postForm('/introspect/explain', { token: access_token }, server)
  expect(toServer.json).toMatchObject({ active: false, reason: 'everyone_revoked' })
  expect(await explain(refresh_token)).toMatchObject({ active: false, reason: 'everyone_revoked' })
  // A token that was already ended still shows its earlier reason.
  expect((await explain(ended.refresh_token)).reason).toBe('session_ended')
  const { text } = await there.get('/metrics', ADMIN_TOKEN)
  expect(text).toMatch(/^assay_verified_total\{outcome="everyone_revoked"\} [1-9]/m)
})

test('it is one audit event with its actor, and belongs to no customer', async () => {
  await revokeEveryone()
  const { events } = (await here.get('/admin/audit?type=everyone.revoked&limit=1', READER)).json
  expect(events).toMatchObject([{ type: 'everyone.revoked', actor: 'operator:alice' }])
  expect(events[0].customer_id).toBeUndefined()
})

describe('it cannot be done by mistake', () => {
  let customer: Customer
  let token: string
  beforeAll(async () => {
    customer = await here.signUp()
    token = (await customer.session()).access_token
  })

  const lives = async () => expect((await here.verify(token)).status).toBe(200)

  test.each([
    ['nothing', {}],
    ['everyone: false', { everyone: false }],
    ['everyone as text', { everyone: 'true' }],
    ['everyone beside a token', { everyone: true, token: 'x' }],
    ['everyone with a session', { everyone: true, session: true }],
    ['a session of no token', { session: true }],
    ['an empty token', { token: '' }],
    ['a typo', { everybody: true }],
  ])('by %s', async (_, body) => {
    const { status, json } = await revoke(body)
    expect([status, json.error]).toEqual([400, 'invalid_request'])
    expect(json.detail.length).toBeGreaterThan(5)
    await lives()
  })

  test('by who may not', async () => {
    expect((await revoke(undefined, READER)).status).toBe(403)
    for (const credential of [customer.apiKey, token, customer.accessToken, 'x'])
      expect((await revoke(undefined, credential)).status).toBe(401)
    expect((await revoke(undefined, ALICE, '?wait=some')).status).toBe(400)
    await lives()
  })
})
