import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { logIn } from '../support/plant.ts'
import {
  ALICE,
  bearer,
  type Customer,
  claimsOf,
  makeWorld,
  READER,
  type Replica,
  type World,
} from '../support/world.ts'

/** Limits for one customer's tokens and sessions that replace the server's settings. */

let world: World
let here: Replica
let there: Replica

beforeAll(async () => {
  world = await makeWorld()
  here = await world.replica()
  there = await world.replica()
})
afterAll(() => world.stop())

const HOUR = 3_600
const DAY = 86_400
const seconds = (many: number) => world.advance(many * 1_000)
const path = (id: string, more = '') => `/admin/customers/${id}${more}`
const read = (id: string, token = ALICE) => there.get(path(id), token)
const put = (id: string, policy: unknown, headers: Record<string, string> = {}, assay = here) =>
  assay.request(path(id, '/policy'), {
    method: 'PUT',
    headers: { ...bearer(ALICE), 'Content-Type': 'application/json', ...headers },
    body: JSON.stringify(policy),
  })

async function ruled(policy: object): Promise<Customer> {
  const customer = await here.signUp()
  await set(customer, policy)
  return customer
}

const set = ({ id }: Customer, policy: object) => here.setPolicy(id, policy)
/** When the session of a refresh token ends unless it is refreshed. */
const idleEndOf = async ({ apiKey }: Customer, token: string) =>
  (await there.introspect(token, `Bearer ${apiKey}`)).json.exp as number

const refreshed = async (token: string, assay = there) => (await assay.refresh(token)).json
const errorOf = ({ status, json }: { status: number; json: { error?: string } }) => `${status} ${json.error}`

describe('a policy', () => {
  const WHOLE = {
    scopes: ['read', 'write'],
    access_token_ttl: 60,
    max_access_token_ttl: 600,
    refresh_token_ttl: DAY,
    session_max_ttl: 2 * DAY,
    refresh_policy: 'strict',
    key_max_age: 7 * DAY,
  }

  test('is returned as it was set, without the members that it omits', async () => {
    const { id } = await here.signUp()
    expect((await read(id)).json).not.toHaveProperty('policy')
    const whole = await put(id, { ...WHOLE, scopes: [...WHOLE.scopes, ...WHOLE.scopes] })
    expect(whole.json.policy).toEqual(WHOLE)
    expect((await read(id, READER)).json.policy).toEqual(WHOLE)
    const listed = await here.get('/admin/customers?limit=100', ALICE)
    expect(listed.json.customers.find((one: { id: string }) => one.id === id).policy).toEqual(WHOLE)
    expect((await put(id, { key_max_age: 0 })).json.policy).toEqual({ key_max_age: 0 })
    expect((await put(id, {})).json).not.toHaveProperty('policy')
  })

  test('is in the audit, with its operator', async () => {
    const customer = await ruled({ scopes: ['a', 'b'], refresh_policy: 'strict' })
    const { json } = await here.get(`/admin/audit?customer=${customer.id}&type=customer.policy_set`, ALICE)
    expect(json.events).toMatchObject([
      { actor: 'operator:alice', subject: customer.id, detail: { scopes: 'a b', refresh_policy: 'strict' } },
    ])
    expect(Object.keys(json.events[0].detail)).toHaveLength(2)
  })

  test('is not set if another change came first', async () => {
    const { id } = await here.signUp()
    const tag = (await read(id)).headers.get('etag')!
    expect((await put(id, { key_max_age: 3_600 }, { 'If-Match': tag })).status).toBe(200)
    expect((await put(id, { key_max_age: 7_200 }, { 'If-Match': tag })).status).toBe(412)
    expect((await put(id, { key_max_age: 10_800 }, { 'If-Match': '"x"' })).status).toBe(400)
    expect((await read(id)).json.policy).toEqual({ key_max_age: 3_600 })
  })

  test('is refused for a read-only operator and for a missing customer', async () => {
    const { id } = await here.signUp()
    expect((await put(id, {}, bearer(READER))).status).toBe(403)
    expect((await put(id, {}, bearer('nobody'))).status).toBe(401)
    expect((await put('a'.repeat(16), {})).status).toBe(404)
    expect((await put('no-id', {})).status).toBe(404)
  })

  test.each([
    [{ scopes: [] }, 'scopes'],
    [{ scopes: 'read' }, 'scopes'],
    [{ scopes: ['*'] }, 'not *'],
    [{ scopes: ['assay:account'] }, "begins with 'assay:'"],
    [{ scopes: ['a b'] }, 'visible ASCII'],
    [{ access_token_ttl: 0 }, 'from 1 to 86400'],
    [{ access_token_ttl: 1.5 }, 'whole seconds'],
    [{ access_token_ttl: '10m' }, 'whole seconds'],
    [{ max_access_token_ttl: DAY + 1 }, 'a day'],
    [{ refresh_token_ttl: 3650 * DAY + 1 }, 'ten years'],
    [{ refresh_policy: 'lax' }, 'until_confirmed, grace_only, strict or reusable'],
    [{ key_max_age: -1 }, '0: never'],
    [{ key_max_age: 1 }, 'from 3600 (an hour)'],
    [{ key_max_age: 3_599 }, 'from 3600 (an hour)'],
    [{ key_max_age: 3650 * DAY + 1 }, 'ten years'],
    [{ key_max_age: null }, 'whole seconds'],
    [{ keyMaxAge: 3_600 }, 'unknown field; allowed: scopes, '],
    [[], 'a JSON object'],
  ])('%j is refused, and the error says what is allowed', async (policy, why) => {
    const { id } = await here.signUp()
    const { status, json } = await put(id, policy)
    expect({ status, error: json.error }).toEqual({ status: 400, error: 'invalid_request' })
    expect(json.detail).toContain(why)
  })

  // The server's defaults: 5m, at most 15m; sessions 30d idle, 90d in total.
  test.each([
    [{ access_token_ttl: 901 }, 'max_access_token_ttl, which is 900 s'],
    [{ access_token_ttl: 61, max_access_token_ttl: 60 }, 'which is 60 s'],
    [{ access_token_ttl: 61, refresh_token_ttl: 60 }, 'refresh_token_ttl, which is 60 s'],
    [{ refresh_token_ttl: 91 * DAY }, 'session_max_ttl'],
    [{ max_access_token_ttl: 3_601, session_max_ttl: 3_600 }, 'session_max_ttl'],
  ])('%j, which another limit would cap, is refused', async (policy, why) => {
    const { id } = await here.signUp()
    const { status, json } = await put(id, policy)
    expect(status).toBe(400)
    expect(json.detail).toContain(why)
  })
})

describe('lifetimes', () => {
  test('a token has its customer’s default lifetime, and no request gets more than the maximum', async () => {
    const customer = await ruled({ access_token_ttl: 1_200, max_access_token_ttl: 3_600 })
    expect((await customer.issue()).json.expires_in).toBe(1_200)
    expect((await customer.issue({ expires_in: 3_600 })).json.expires_in).toBe(3_600)
    const over = await customer.issue({ expires_in: 3_601 })
    expect(errorOf(over)).toBe('400 invalid_request')
    expect(over.json.error_description).toBe('expires_in: from 1 to 3600 seconds')
    for (const expires_in of [86_401, 2 ** 31, 1e300])
      expect((await customer.issue({ expires_in })).json).toEqual({
        ...over.json,
        request_id: expect.any(String),
      })
    expect((await (await here.signUp()).issue({ expires_in: 901 })).status).toBe(400)
  })

  test('the maximum caps the server’s default', async () => {
    const customer = await ruled({ max_access_token_ttl: 60 })
    expect((await customer.issue()).json.expires_in).toBe(60)
    const form = { grant_type: 'client_credentials' }
    expect((await there.postForm('/token', form, bearer(customer.apiKey))).json.expires_in).toBe(60)
    expect((await logIn(there, customer)) as object).toMatchObject({ expires_in: 60 })
  })

  test('the next token of an earlier session is capped at the new maximum', async () => {
    const customer = await here.signUp()
    const { refresh_token } = await customer.session({ expires_in: 600 })
    await set(customer, { max_access_token_ttl: 30 })
    const short = await refreshed(refresh_token)
    expect(short.expires_in).toBe(30)
    expect((await refreshed(refresh_token, here)).expires_in).toBe(30)
    await set(customer, {})
    expect((await refreshed(short.refresh_token)).expires_in).toBe(600)
  })

  test('a session ends after its customer’s idle time or absolute lifetime', async () => {
    const customer = await ruled({ refresh_token_ttl: 3_600, session_max_ttl: 5_400 })
    const idle = await customer.session()
    let { refresh_token } = await customer.session()
    await seconds(3_000)
    ;({ refresh_token } = await refreshed(refresh_token))
    await seconds(700)
    expect((await there.refresh(idle.refresh_token)).json.error).toBe('invalid_grant')
    const last = await refreshed(refresh_token)
    const idleEnd = await idleEndOf(customer, last.refresh_token)
    expect(idleEnd - claimsOf(last.refresh_token).iat).toBeLessThanOrEqual(1_700)
    await seconds(1_701)
    expect((await there.refresh(last.refresh_token)).json.error).toBe('invalid_grant')
  })

  test('an earlier session gets its customer’s new idle time', async () => {
    const customer = await here.signUp()
    const { refresh_token } = await customer.session()
    await set(customer, { refresh_token_ttl: 3_600 })
    const next = await refreshed(refresh_token)
    const idleEnd = await idleEndOf(customer, next.refresh_token)
    expect(idleEnd - claimsOf(next.refresh_token).iat).toBe(3_600)
  })

  test('a retry with its Idempotency-Key is capped at the maximum too', async () => {
    const customer = await here.signUp()
    const body = { subject: 'u', refresh: true, expires_in: 600 }
    const headers = { 'Idempotency-Key': 'k-1' }
    const first = await customer.issue(body, headers)
    await set(customer, { max_access_token_ttl: 60 })
    expect((await customer.issue(body, headers)).json.error_description).toContain('from 1 to 60')
    await set(customer, {})
    expect((await customer.issue(body, headers)).json.session_id).toBe(first.json.session_id)
  })
})

describe('scopes', () => {
  test('no token gets a scope that its customer may not have, whatever its API key allows', async () => {
    const customer = await ruled({ scopes: ['read', 'list'] })
    expect((await customer.issue({ scope: 'read' })).json.scope).toBe('read')
    const over = await customer.issue({ scope: 'read write' })
    expect(errorOf(over)).toBe('400 invalid_scope')
    expect(over.json.error_description).toBe("this customer's policy allows only these scopes: read list")
    const session = await customer.issue({ scope: 'write', refresh: true, subject: 'u' })
    expect(errorOf(session)).toBe('400 invalid_scope')
    const { json } = await here.get('/admin/audit?type=token.issued&limit=100', ALICE)
    const ofThis = json.events.filter((event: { customer_id: string }) => event.customer_id === customer.id)
    expect(ofThis).toHaveLength(1)
  })

  test('by default a token has those scopes of its API key that remain allowed', async () => {
    const customer = await ruled({ scopes: ['read', 'list'] })
    const { json } = await here.postJson(
      '/api/keys',
      { scopes: ['write', 'list', 'read'] },
      bearer(customer.accessToken),
    )
    const issued = await here.postJson('/issue', {}, bearer(json.api_key))
    expect(issued.json.scope).toBe('list read')
  })

  test('a session with more scopes continues with the remaining ones, and the others cannot be requested', async () => {
    const customer = await here.signUp()
    const { refresh_token, access_token } = await customer.session()
    await set(customer, { scopes: ['read'] })
    expect(claimsOf(access_token).scope).toBe('read write')
    expect((await there.introspect(refresh_token, `Bearer ${customer.apiKey}`)).json.scope).toBe('read')
    const asked = await there.postForm('/refresh', { refresh_token, scope: 'write' })
    expect(errorOf(asked)).toBe('400 invalid_scope')
    expect(asked.json.error_description).toContain("that the customer's policy allows")
    const next = await refreshed(refresh_token)
    expect(claimsOf(next.access_token).scope).toBe('read')
    await set(customer, {})
    expect(claimsOf((await refreshed(next.refresh_token)).access_token).scope).toBe('read write')
  })

  test('a session without any remaining scope is refused, and continues once it has one again', async () => {
    const customer = await here.signUp()
    const { refresh_token } = await customer.session()
    await set(customer, { scopes: ['list'] })
    for (const form of [{ refresh_token }, { refresh_token, scope: 'read' }]) {
      const refused = await there.postForm('/refresh', form)
      expect(errorOf(refused)).toBe('400 invalid_scope')
      expect(refused.json.error_description).toContain("customer's policy")
    }
    const token = { grant_type: 'refresh_token', refresh_token }
    expect(errorOf(await here.postForm('/token', token))).toBe('400 invalid_scope')
    await set(customer, { scopes: ['write', 'list'] })
    expect((await refreshed(refresh_token)).scope).toBe('write')
  })

  test('a session that never had a scope can be refreshed, whatever the policy', async () => {
    const customer = await ruled({ scopes: ['list'] })
    const { json } = await customer.issue({ subject: 'user-1', refresh: true })
    expect(json).not.toHaveProperty('scope')
    expect(await refreshed(json.refresh_token)).not.toHaveProperty('scope')
  })

  test('the account’s own sessions keep their scopes', async () => {
    const customer = await ruled({ scopes: ['read'] })
    const { access_token, refresh_token } = await logIn(there, customer)
    expect((await there.get('/api/keys', access_token)).status).toBe(200)
    const next = await refreshed(refresh_token)
    expect((await there.get('/api/keys', next.access_token)).status).toBe(200)
  })
})

describe('the refresh policy', () => {
  test('strict: reuse of a token is treated as theft at once', async () => {
    const customer = await ruled({ refresh_policy: 'strict' })
    const { refresh_token } = await customer.session()
    expect((await there.refresh(refresh_token)).status).toBe(200)
    expect((await there.refresh(refresh_token)).json.error).toBe('invalid_grant')
    const other = await (await here.signUp()).session()
    for (let i = 0; i < 2; i++) expect((await there.refresh(other.refresh_token)).status).toBe(200)
  })

  test('grace_only: a lost answer can be retried within the grace, and no longer', async () => {
    const customer = await ruled({ refresh_policy: 'grace_only' })
    const { refresh_token } = await customer.session()
    const lost = await refreshed(refresh_token)
    expect((await refreshed(refresh_token)).refresh_token).toBe(lost.refresh_token)
    await seconds(11)
    expect((await there.refresh(refresh_token)).json.error).toBe('invalid_grant')
  })
})

describe('the age of secrets', () => {
  const versions = async ({ id }: Customer, assay = here) =>
    (await assay.get(path(id, '/secrets'), ALICE)).json.secrets.map(
      ({ use, version }: { use: string; version: number }) => `${use} ${version}`,
    )
  const FIRST = ['access 1', 'refresh 1']

  /**
   * Rows of customers whose secrets are rotated every hour. The secrets cannot be decrypted, which doesn't affect their
   * schedule.
   */
  const plantHasty = (own: World, many: number) =>
    own.admin.query(
      `with planted as (
        insert into assay.customers (id, email, password_hash, sealed_data_key, key_max_age, created_at)
        select translate(left(md5(n::text), 16), '0189', 'wxyz'), n || '@example.com', 'x', '\\x00', 3600, assay.now()
        from generate_series(1, $1::int) as n
        returning id, created_at
      )
      insert into assay.signing_keys (customer_id, use, version, state, alg, sealed_secret, created_at)
      select id, 'access', 1, 'current', 'HS512', '\\x00', created_at from planted`,
      [many],
    )

  test('each customer’s secrets are rotated by its own setting, or else by KEY_MAX_AGE', async () => {
    const [week, never, usual] = await Promise.all([
      ruled({ key_max_age: 7 * DAY }),
      ruled({ key_max_age: 0 }),
      here.signUp(),
    ])
    await world.maintain()
    for (const one of [week, never, usual]) expect(await versions(one)).toEqual(FIRST)
    await seconds(8 * DAY)
    await world.maintain()
    expect(await versions(week)).toContain('access 2')
    for (const one of [never, usual]) expect(await versions(one)).toEqual(FIRST)
    await seconds(85 * DAY)
    await world.maintain()
    expect(await versions(usual)).toContain('refresh 2')
    expect(await versions(never)).toEqual(FIRST)
  })

  test('the oldest are rotated first, however many customers rotate every hour', async () => {
    const own = await makeWorld()
    onTestFinished(() => own.stop())
    const keeper = await own.replica()
    const old = await keeper.signUp()
    await own.advance(91 * DAY * 1_000)
    await plantHasty(own, 300)
    await own.advance(HOUR * 1_000)
    await own.maintain()
    expect(await versions(old, keeper)).toContain('access 2')
  })

  test('a customer’s own setting also applies when KEY_MAX_AGE is 0', async () => {
    const own = await makeWorld({ KEY_MAX_AGE: '0s' })
    onTestFinished(() => own.stop())
    const keeper = await own.replica()
    const [week, usual] = [await keeper.signUp(), await keeper.signUp()]
    await put(week.id, { key_max_age: 7 * DAY }, {}, keeper)
    await own.advance(100 * DAY * 1_000)
    await own.maintain()
    expect(await versions(week, keeper)).toContain('access 2')
    expect(await versions(usual, keeper)).toEqual(FIRST)
  })
})
