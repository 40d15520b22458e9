import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import {
  ADMIN_TOKEN,
  basic,
  bearer,
  type Customer,
  makeWorld,
  type Replica,
  SERVICE,
  type World,
} from '../support/world.ts'

let world: World
let assay: Replica
let another: Replica
let customer: Customer
let stranger: Customer

beforeAll(async () => {
  // Polls every 250 ms: wait=all takes two polls of the other replica.
  world = await makeWorld({ MAX_STALENESS: '1s' })
  assay = await world.replica()
  another = await world.replica()
  customer = await assay.signUp()
  stranger = await assay.signUp()
})
afterAll(() => world.stop())

const revoke = (form: Record<string, string>, apiKey?: string, replica = assay, query = '') =>
  replica.postForm(`/revoke${query}`, form, apiKey === undefined ? {} : bearer(apiKey))

/** The answers of all endpoints that check an access token. */
async function expectAlive(token: string, alive: boolean, replica = assay) {
  expect((await replica.verify(token)).status).toBe(alive ? 200 : 401)
  expect((await replica.introspect(token)).json.active).toBe(alive)
  expect((await replica.get('/introspect', token)).json.active).toBe(alive)
  // A user's token is recognized there, but may do nothing.
  expect((await replica.get('/api/auth/me', token)).status).toBe(alive ? 403 : 401)
}

async function expectDone(answer: Promise<{ status: number; text: string; headers: Headers }>) {
  const { status, text, headers } = await answer
  expect([status, text]).toEqual([200, '{}'])
  expect(headers.get('content-type')).toBe('application/json')
}

/** All rows that a revocation writes. */
async function written() {
  const [row] = await world.admin.query<{ numbers: number; events: number; seq: number }>(`
    select (select count(*)::int from assay.revocations) as numbers, (select seq::int from assay.change_feed) as seq,
      (select count(*)::int from assay.audit_events where type like '%.revoked') as events`)
  return row!
}

describe('an access token', () => {
  test('is refused everywhere, and the others of its session are not', async () => {
    const { access_token: token, refresh_token } = await customer.session()
    const { access_token: later } = (await assay.refresh(refresh_token)).json
    await expectAlive(token, true)
    await expectDone(revoke({ token }, customer.apiKey))
    await expectAlive(token, false)
    await expectAlive(later, true)
  })

  test.each(['query', 'form'])('takes its session with it, with session=true in the %s', async place => {
    const { access_token: token, refresh_token } = await customer.session()
    const next = (await assay.refresh(refresh_token)).json
    const [form, query] = place === 'form' ? [{ token, session: 'true' }, ''] : [{ token }, '?session=true']
    await expectDone(revoke(form as Record<string, string>, customer.apiKey, assay, query))
    await expectAlive(token, false)
    await expectAlive(next.access_token, false)
    expect((await assay.refresh(next.refresh_token)).json.error).toBe('invalid_grant')
  })

  test('ends alone when it has no session', async () => {
    const { access_token: token } = (await customer.issue()).json
    await expectDone(revoke({ token, session: 'true' }, customer.apiKey))
    await expectAlive(token, false)
  })

  test('can only be revoked with an API key, not by its bearer', async () => {
    const { access_token: token } = await customer.session()
    for (const authorization of [undefined, token, customer.accessToken, 'garbage', ADMIN_TOKEN]) {
      const { status, json, headers } = await revoke({ token }, authorization)
      expect([status, json.error]).toEqual([401, 'invalid_client'])
      expect(headers.get('www-authenticate')).toContain('Basic')
    }
    const server = { Authorization: basic(SERVICE.id, SERVICE.secret) }
    const { status, json } = await assay.postForm('/revoke', { token }, server)
    expect([status, json.error]).toEqual([400, 'unauthorized_client'])
    await expectAlive(token, true)
  })
})

describe('a refresh token', () => {
  test('is enough to log its bearer out: its session ends, with all its access tokens', async () => {
    const first = await customer.session()
    const next = (await assay.refresh(first.refresh_token)).json
    await expectDone(revoke({ token: next.refresh_token, token_type_hint: 'refresh_token' }))
    for (const token of [first.access_token, next.access_token]) await expectAlive(token, false)
    for (const token of [first.refresh_token, next.refresh_token])
      expect((await assay.refresh(token)).json.error).toBe('invalid_grant')
  })

  test('ends its session with an API key too, however the key is sent', async () => {
    const ways: [Record<string, string>, Record<string, string>][] = [
      [{}, bearer(customer.apiKey)],
      [{}, { Authorization: basic(customer.id, customer.apiKey) }],
      [{ client_id: customer.id, client_secret: customer.apiKey }, {}],
    ]
    for (const [form, headers] of ways) {
      const { refresh_token: token, access_token } = await customer.session()
      await expectDone(assay.postForm('/revoke', { token, ...form }, headers))
      await expectAlive(access_token, false)
    }
  })

  test("of the account's own login logs the account out", async () => {
    const { accessToken, refreshToken } = await assay.signUp()
    await expectDone(revoke({ token: refreshToken }))
    await expectAlive(accessToken, false)
  })

  test('leaves other sessions of the same user alone', async () => {
    const [one, two] = [await customer.session(), await customer.session()]
    await expectDone(revoke({ token: one.refresh_token }))
    await expectAlive(two.access_token, true)
  })
})

test('an unknown token is 200 too: it is already invalid, as the caller wants', async () => {
  const expired = (await customer.issue({ expires_in: 1 })).json.access_token
  await world.advance(2_000)
  const before = await written()
  const { access_token: token } = await customer.session()
  for (const unknown of ['garbage', 'a.b.c', expired, token.slice(0, -2), customer.apiKey, '名'])
    await expectDone(revoke({ token: unknown }, customer.apiKey))
  expect(await written()).toEqual(before)
})

test("another customer's token is 200, and remains valid", async () => {
  const { access_token, refresh_token } = await customer.session()
  const before = await written()
  for (const token of [access_token, refresh_token]) {
    await expectDone(revoke({ token }, stranger.apiKey))
    await expectDone(revoke({ token, session: 'true' }, stranger.apiKey))
  }
  expect(await written()).toEqual(before)
  await expectAlive(access_token, true)
  expect((await assay.refresh(refresh_token)).status).toBe(200)
})

test.each(['access_token', 'refresh_token'] as const)(
  'revoking an %s again is 200, and writes nothing new',
  async kind => {
    const { [kind]: token } = await customer.session()
    const before = await written()
    await expectDone(revoke({ token }, customer.apiKey))
    const once = await written()
    expect(once).toEqual({ numbers: before.numbers + 1, seq: before.seq + 1, events: before.events + 1 })
    await expectDone(revoke({ token }, customer.apiKey))
    await expectDone(revoke({ token, session: 'false', wait: 'all' }, customer.apiKey))
    expect(await written()).toEqual(once)
  },
)

test('malformed requests get an error, and revoke nothing', async () => {
  const { access_token: token } = await customer.session()
  const wrong: [Record<string, string>, string][] = [
    [{}, ''],
    [{ token: '' }, ''],
    [{ token, wait: 'some' }, ''],
    [{ token }, '?wait=true'],
    [{ token }, '?session=yes'],
    [{ token, session: '1' }, ''],
    [{ token }, '?wait=all&wait=all'],
    [{ token, session: 'true' }, '?session=false'],
    [{ token, session: 'true' }, '?session=true'],
    [{ token, wait: 'all' }, '?wait=all'],
    [{ token }, '?wiat=all'],
    [{ token }, '?wait='],
    [{}, `?token=${token}`],
  ]
  for (const [form, query] of wrong) {
    const { status, json } = await revoke(form, customer.apiKey, assay, query)
    expect([status, json.error]).toEqual([400, 'invalid_request'])
  }
  expect((await assay.postJson('/revoke', { token }, bearer(customer.apiKey))).status).toBe(400)
  await expectAlive(token, true)
})

describe('with wait=all', () => {
  test.each(['query', 'form'])(
    'in the %s, no replica accepts it once the answer has arrived',
    async place => {
      for (let round = 0; round < 2; round++) {
        const { access_token: token } = await customer.session()
        await expectAlive(token, true, another)
        const [form, query] = place === 'form' ? [{ token, wait: 'all' }, ''] : [{ token }, '?wait=all']
        await expectDone(revoke(form as Record<string, string>, customer.apiKey, assay, query))
        await expectAlive(token, false, another)
        await expectAlive(token, false)
      }
    },
  )

  test('the end of a session is known to all replicas', async () => {
    const { access_token, refresh_token } = await customer.session()
    await expectAlive(access_token, true, another)
    await expectDone(revoke({ token: refresh_token, wait: 'all' }))
    await expectAlive(access_token, false, another)
    expect((await another.refresh(refresh_token)).json.error).toBe('invalid_grant')
  })

  test.each(['access_token', 'refresh_token'] as const)(
    'a second request for an %s waits too, after a first that did not',
    async kind => {
      for (let round = 0; round < 2; round++) {
        const tokens = await customer.session()
        await expectAlive(tokens.access_token, true, another)
        await expectDone(revoke({ token: tokens[kind] }, customer.apiKey))
        await expectDone(revoke({ token: tokens[kind], wait: 'all' }, customer.apiKey))
        await expectAlive(tokens.access_token, false, another)
      }
    },
  )
})

test('without wait=all the replica that acted refuses at once, the others after their next poll', async () => {
  const { access_token: token } = await customer.session()
  await expectAlive(token, true, another)
  await expectDone(revoke({ token }, customer.apiKey))
  await expectAlive(token, false)
  await another.changeFeed.poll()
  await another.changeFeed.poll() // The first poll may already have been running.
  await expectAlive(token, false, another)
})
