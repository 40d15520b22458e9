import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { countsOf, storedSession } from '../support/sessions.ts'
import {
  ALICE,
  type Answer,
  basic,
  bearer,
  type Customer,
  claimsOf,
  makeWorld,
  type Replica,
  type World,
} from '../support/world.ts'

/** The refresh policy `reusable`: an authenticated client keeps its refresh token. */

let world: World
let here: Replica
let there: Replica

beforeAll(async () => {
  world = await makeWorld()
  here = await world.replica()
  there = await world.replica()
})
afterAll(() => world.stop())

const MINUTE = 60_000
const DAY = 86_400_000

async function ruled(refresh_policy: string): Promise<Customer> {
  const customer = await here.signUp()
  await here.setPolicy(customer.id, { refresh_policy })
  return customer
}

const setRefreshPolicy = ({ id }: Customer, refresh_policy: string) => here.setPolicy(id, { refresh_policy })

const errorOf = ({ status, json }: Answer) => `${status} ${json.error}`

/** A customer whose secrets are used only by the sessions of this test. */
async function withoutAccountSession(): Promise<Customer> {
  const customer = await ruled('reusable')
  await here.postForm('/revoke', { token: customer.refreshToken })
  return customer
}

/** Rotates the secret of refresh tokens; unused secrets are retired a day later. */
async function rotateRefresh({ id }: Customer) {
  const { status } = await here.postJson(
    `/admin/customers/${id}/secrets/rotate`,
    { use: 'refresh' },
    bearer(ALICE),
  )
  expect(status).toBe(200)
  await world.advance(DAY)
  await world.maintain()
}

async function refreshSecrets({ id }: Customer): Promise<string[]> {
  const { json } = await here.get(`/admin/customers/${id}/secrets`, ALICE)
  const secrets = json.secrets as { use: string; version: number; state: string }[]
  return secrets.filter(({ use }) => use === 'refresh').map(({ version, state }) => `${version} ${state}`)
}

/** An access token that the client was seen using. */
async function see(accessToken: string) {
  expect((await here.verify(accessToken)).status).toBe(200)
  await here.sessions.flush()
}

describe('with an API key of the customer', () => {
  /** The ways to send an API key, by RFC 6749 2.3.1 and by this server. */
  const ways: [string, (customer: Customer, token: string) => Promise<Answer>][] = [
    ['as Bearer, in a form', (c, token) => here.refresh(token, bearer(c.apiKey))],
    ['as Basic', (c, token) => here.refresh(token, { Authorization: basic(c.id, c.apiKey) })],
    [
      'in the form',
      (c, refresh_token) =>
        here.postForm('/refresh', { refresh_token, client_id: c.id, client_secret: c.apiKey }),
    ],
    [
      'as Bearer, in JSON',
      (c, refresh_token) => here.postJson('/refresh', { refresh_token }, bearer(c.apiKey)),
    ],
    [
      'at /token',
      (c, refresh_token) =>
        here.postForm('/token', { grant_type: 'refresh_token', refresh_token }, bearer(c.apiKey)),
    ],
    [
      'at /api/auth/refresh',
      (c, refresh_token) => here.postForm('/api/auth/refresh', { refresh_token }, bearer(c.apiKey)),
    ],
  ]

  test.each(ways)('the same refresh token is returned, and remains valid (%s)', async (_, refresh) => {
    const customer = await ruled('reusable')
    const { refresh_token, session_id } = await customer.session()
    for (let turn = 0; turn < 3; turn++) {
      const { status, json } = await refresh(customer, refresh_token)
      expect(status).toBe(200)
      expect(json.refresh_token).toBe(refresh_token)
      expect(json.session_id).toBe(session_id)
      await see(json.access_token)
      await world.advance(MINUTE)
    }
    expect((await storedSession(world, session_id)).gen).toBe(1)
    expect(await countsOf(world, session_id)).toEqual({ 'token.issued': 1, 'session.refreshed': 3 })
  })

  test('each refresh extends the idle time, and none the absolute expiry', async () => {
    const customer = await ruled('reusable')
    const idle = await customer.session()
    const used = await customer.session()
    const refresh = ({ refresh_token }: { refresh_token: string }) =>
      there.refresh(refresh_token, bearer(customer.apiKey))
    await world.advance(29 * DAY)
    expect((await refresh(used)).status).toBe(200)
    await world.advance(2 * DAY)
    expect(errorOf(await refresh(idle))).toBe('400 invalid_grant')
    for (let month = 0; month < 2; month++) {
      expect((await refresh(used)).status).toBe(200)
      await world.advance(29 * DAY)
    }
    const last = await refresh(used)
    expect(last.status).toBe(200)
    expect((await storedSession(world, used.session_id)).expiresAt).toBe(
      (await storedSession(world, used.session_id)).endsAt,
    )
    await world.advance(DAY)
    expect(errorOf(await refresh(used))).toBe('400 invalid_grant')
  })

  test('introspection and the list of sessions show when it ends and when it was last refreshed', async () => {
    const customer = await ruled('reusable')
    const { refresh_token, session_id } = await customer.session()
    const listed = async () => {
      const { json } = await here.get('/api/sessions?subject=user-1', customer.accessToken)
      return json.sessions[0]
    }
    expect(await listed()).not.toHaveProperty('refreshed_at')
    await world.advance(MINUTE)
    await here.refresh(refresh_token, bearer(customer.apiKey))
    const { id, generation, created_at, refreshed_at, expires_at, ends_at } = await listed()
    expect({ id, generation }).toEqual({ id: session_id, generation: 1 })
    expect(Date.parse(refreshed_at) - Date.parse(created_at)).toBeGreaterThanOrEqual(MINUTE)
    expect(Date.parse(expires_at) - Date.parse(refreshed_at)).toBe(30 * DAY)
    const { json } = await there.introspect(refresh_token, `Bearer ${customer.apiKey}`)
    expect(json).toMatchObject({ active: true, exp: Math.floor(Date.parse(expires_at) / 1_000) })
    expect(claimsOf(refresh_token).exp).toBe(Math.floor(Date.parse(ends_at) / 1_000))
  })

  test('a rotation of the secrets does not end it, however long the client keeps a token of the old secret', async () => {
    const customer = await withoutAccountSession()
    const { refresh_token } = await customer.session()
    for (let turn = 0; turn < 3; turn++) {
      await rotateRefresh(customer)
      const { status, json } = await there.refresh(refresh_token, bearer(customer.apiKey))
      expect(status).toBe(200)
      expect(json.refresh_token).toBe(refresh_token)
    }
    expect(await refreshSecrets(customer)).toEqual(['4 current', '3 retired', '2 retired', '1 previous'])
  })

  test('a client that is ahead of its session after a failover keeps its token through rotations of the secrets', async () => {
    const customer = await withoutAccountSession()
    const { refresh_token: first, session_id } = await customer.session()
    await rotateRefresh(customer)
    const { refresh_token } = (await here.refresh(first)).json
    await world.admin.query(
      'update assay.sessions set gen = 1, key_version = 1, prev_key_version = null where id = $1',
      [session_id],
    )
    // Nothing refers to its signing secret until the token is presented, so that happens before the secret is retired.
    await here.postJson(`/admin/customers/${customer.id}/secrets/rotate`, { use: 'refresh' }, bearer(ALICE))
    for (let turn = 0; turn < 3; turn++) {
      const { status, json } = await there.refresh(refresh_token, bearer(customer.apiKey))
      expect(status).toBe(200)
      expect(claimsOf(json.refresh_token)).toMatchObject({ gen: 2 })
      await rotateRefresh(customer)
    }
    expect(await countsOf(world, session_id)).toMatchObject({ 'session.adopted': 1, 'session.refreshed': 3 })
    expect(await refreshSecrets(customer)).toContain('2 previous')
  })

  test('32 concurrent refreshes on two replicas are all granted and change no token', async () => {
    const customer = await ruled('reusable')
    const { refresh_token, session_id } = await customer.session()
    const answers = await Promise.all(
      Array.from({ length: 32 }, (_, n) =>
        (n % 2 ? here : there).refresh(refresh_token, bearer(customer.apiKey)),
      ),
    )
    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([200]))
    expect(new Set(answers.map(({ json }) => json.refresh_token))).toEqual(new Set([refresh_token]))
    expect(new Set(answers.map(({ json }) => json.access_token)).size).toBe(32)
    expect((await storedSession(world, session_id)).gen).toBe(1)
  })

  test('a revocation by the same refresh token ends it permanently', async () => {
    const customer = await ruled('reusable')
    const { refresh_token, access_token } = await customer.session()
    await here.refresh(refresh_token, bearer(customer.apiKey))
    await here.postForm('/revoke', { token: refresh_token, wait: 'all' })
    expect(errorOf(await there.refresh(refresh_token, bearer(customer.apiKey)))).toBe('400 invalid_grant')
    expect((await there.verify(access_token)).status).toBe(401)
  })

  test('a wrong key is refused, and so is the key of another customer', async () => {
    const [customer, other] = [await ruled('reusable'), await ruled('reusable')]
    const { refresh_token } = await customer.session()
    expect(errorOf(await here.refresh(refresh_token, bearer(`${customer.apiKey}x`)))).toBe(
      '401 invalid_client',
    )
    expect(errorOf(await here.refresh(refresh_token, bearer(other.apiKey)))).toBe('400 invalid_grant')
  })

  test('a narrower scope is granted and a wider one refused, without ending the session', async () => {
    const customer = await ruled('reusable')
    const { refresh_token } = await customer.session()
    const refresh = (scope: string) =>
      here.postForm('/refresh', { refresh_token, scope }, bearer(customer.apiKey))
    expect((await refresh('read')).json).toMatchObject({ scope: 'read', refresh_token })
    expect(errorOf(await refresh('admin'))).toBe('400 invalid_scope')
    expect((await here.refresh(refresh_token, bearer(customer.apiKey))).json.scope).toBe('read write')
  })
})

describe('without authentication', () => {
  test('a refresh token is rotated, and a lost answer can be retried', async () => {
    const customer = await ruled('reusable')
    const { refresh_token } = await customer.session()
    const lost = await here.refresh(refresh_token)
    expect(lost.json.refresh_token).not.toBe(refresh_token)
    await world.advance(MINUTE)
    for (const form of [{ refresh_token }, { refresh_token, client_id: customer.id }])
      expect((await there.postForm('/refresh', form)).json.refresh_token).toBe(lost.json.refresh_token)
  })

  test('reuse of a token ends the session', async () => {
    const customer = await ruled('reusable')
    const { refresh_token, session_id } = await customer.session()
    await see((await here.refresh(refresh_token)).json.access_token)
    await world.advance(MINUTE)
    expect(errorOf(await there.refresh(refresh_token))).toBe('400 invalid_grant')
    expect(await countsOf(world, session_id)).toHaveProperty('session.reuse_detected', 1)
  })

  test('a thief who has only the refresh token is detected when its owner refreshes', async () => {
    const customer = await ruled('reusable')
    const { refresh_token, session_id } = await customer.session()
    for (let turn = 0; turn < 3; turn++)
      expect((await here.refresh(refresh_token, bearer(customer.apiKey))).status).toBe(200)
    const stolen = (await there.refresh(refresh_token)).json
    await see(stolen.access_token)
    await world.advance(MINUTE)
    expect(errorOf(await here.refresh(refresh_token, bearer(customer.apiKey)))).toBe('400 invalid_grant')
    expect((await storedSession(world, session_id)).revoked).toBe(true)
    expect(errorOf(await there.refresh(stolen.refresh_token))).toBe('400 invalid_grant')
    expect((await here.verify(stolen.access_token)).status).toBe(401)
  })

  test('a client that mixes both, and stores every token, is not logged out', async () => {
    const customer = await ruled('reusable')
    let { refresh_token: token } = await customer.session()
    for (const isAuthenticated of [true, false, false, true, true, false, true]) {
      const { status, json } = await here.refresh(token, isAuthenticated ? bearer(customer.apiKey) : {})
      expect(status).toBe(200)
      token = json.refresh_token
      await see(json.access_token)
      await world.advance(MINUTE)
    }
  })
})

describe('a policy that changes while sessions live', () => {
  const POLICIES = ['until_confirmed', 'reusable', 'strict', 'reusable', 'grace_only', 'reusable']

  test.each([true, false])(
    'never logs out a client that stores its new token before it uses the access token (with an API key: %s)',
    async isAuthenticated => {
      const customer = await here.signUp()
      let { refresh_token: token } = await customer.session()
      for (const policy of [...POLICIES, ...POLICIES]) {
        await setRefreshPolicy(customer, policy)
        const { status, json } = await there.refresh(token, isAuthenticated ? bearer(customer.apiKey) : {})
        expect([policy, status]).toEqual([policy, 200])
        token = json.refresh_token
        await see(json.access_token)
        await world.advance(MINUTE)
      }
    },
  )

  test('a client that kept its first token can refresh past the idle time of an earlier policy', async () => {
    const customer = await here.signUp()
    const { refresh_token } = await customer.session()
    await setRefreshPolicy(customer, 'reusable')
    for (let turn = 0; turn < 3; turn++) {
      await world.advance(25 * DAY)
      expect((await here.refresh(refresh_token, bearer(customer.apiKey))).status).toBe(200)
    }
  })

  test('an answer lost before reusable can be retried under it', async () => {
    const customer = await here.signUp()
    const { refresh_token } = await customer.session()
    const lost = await here.refresh(refresh_token)
    await setRefreshPolicy(customer, 'reusable')
    await world.advance(MINUTE)
    const retried = await there.refresh(refresh_token, bearer(customer.apiKey))
    expect(retried.json.refresh_token).toBe(lost.json.refresh_token)
  })

  /** How the policy's rotation ends the previous token, and when that token is presented under `reusable`. */
  const ended: [string, string, number][] = [
    ['strict', 'at once', 0],
    ['grace_only', 'after the grace', MINUTE],
  ]

  for (const looser of ['reusable', 'until_confirmed'])
    test.each(ended)(`a token that %s ended %s stays ended under ${looser}`, async (policy, _, later) => {
      const customer = await ruled(policy)
      const { refresh_token, session_id } = await customer.session()
      await here.refresh(refresh_token)
      await setRefreshPolicy(customer, looser)
      await world.advance(later)
      expect(errorOf(await there.refresh(refresh_token, bearer(customer.apiKey)))).toBe('400 invalid_grant')
      expect(await countsOf(world, session_id)).toHaveProperty('session.reuse_detected', 1)
    })

  test('a token that strict ended stays ended when its successor is rotated or kept under reusable', async () => {
    const customer = await ruled('strict')
    for (const headers of [{}, bearer(customer.apiKey)]) {
      await setRefreshPolicy(customer, 'strict')
      const { refresh_token } = await customer.session()
      const { json } = await here.refresh(refresh_token)
      await setRefreshPolicy(customer, 'reusable')
      expect((await here.refresh(json.refresh_token, headers)).status).toBe(200)
      expect(errorOf(await there.refresh(refresh_token, bearer(customer.apiKey)))).toBe('400 invalid_grant')
    }
  })

  test('a token whose successor was presented under reusable is valid for the grace, and no longer', async () => {
    const customer = await here.signUp()
    const { refresh_token } = await customer.session()
    const { json } = await here.refresh(refresh_token)
    await setRefreshPolicy(customer, 'reusable')
    await world.advance(MINUTE)
    const refresh = (token: string) => there.refresh(token, bearer(customer.apiKey))
    expect((await refresh(json.refresh_token)).status).toBe(200)
    expect((await refresh(refresh_token)).json.refresh_token).toBe(json.refresh_token)
    await world.advance(11_000)
    expect(errorOf(await refresh(refresh_token))).toBe('400 invalid_grant')
  })

  test('a token that was kept under reusable is used up by its next refresh under strict', async () => {
    const customer = await ruled('reusable')
    const { refresh_token } = await customer.session()
    const refresh = (token: string) => here.refresh(token, bearer(customer.apiKey))
    await refresh(refresh_token)
    await setRefreshPolicy(customer, 'strict')
    const { json } = await refresh(refresh_token)
    expect(json.refresh_token).not.toBe(refresh_token)
    expect(errorOf(await refresh(refresh_token))).toBe('400 invalid_grant')
  })
})
