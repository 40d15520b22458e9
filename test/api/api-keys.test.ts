import { afterAll, beforeAll, expect, test } from 'vitest'
import { control } from '../support/database.ts'
import { stopClock, sync } from '../support/plant.ts'
import {
  basic,
  bearer,
  type Customer,
  claimsOf,
  makeWorld,
  type Replica,
  type World,
} from '../support/world.ts'

let world: World
let assay: Replica
let other: Replica

beforeAll(async () => {
  world = await makeWorld()
  assay = await world.replica()
  other = await world.replica()
})
afterAll(() => world.stop())

const create = (customer: Customer, body: object = {}, at = assay) =>
  at.postJson('/api/keys', body, bearer(customer.accessToken))
const remove = (customer: Customer, id: string, query = '') =>
  assay.request(`/api/keys/${id}${query}`, { method: 'DELETE', headers: bearer(customer.accessToken) })
const list = async (customer: Customer) => (await assay.get('/api/keys', customer.accessToken)).json.keys
const issueWith = (key: string, body: object = {}, at = assay) => at.postJson('/issue', body, bearer(key))
const statusOf = async (answer: ReturnType<typeof issueWith>) => (await answer).status

test('the key made at signup is listed without its secret, and may request any scope', async () => {
  const customer = await assay.signUp()
  const { text, json } = await assay.get('/api/keys', customer.accessToken)
  const id = customer.apiKey.split('_')[2]
  expect(json.keys).toMatchObject([{ id, scopes: ['*', 'assay:sessions'] }])
  expect(text).not.toContain(customer.apiKey.split('_')[3])
  expect((await issueWith(customer.apiKey, { scope: 'any thing' })).json.scope ?? 'any thing').toBe(
    'any thing',
  )
})

test('a new key has a name, scopes and an expiry, is shown once, and is listed first', async () => {
  const customer = await assay.signUp()
  const body = { name: ' billing ', scopes: ['read', 'write', 'read'], expires_in: 3600 }
  const { status, json, headers } = await create(customer, body)
  expect(status).toBe(201)
  expect(headers.get('cache-control')).toBe('no-store')
  const { api_key: text, ...shown } = json
  expect(text).toMatch(new RegExp(`^assay_ak_${json.id}_[A-Za-z0-9]{43}_[A-Za-z0-9]{6}$`))
  expect(shown).toMatchObject({ name: 'billing', scopes: ['read', 'write'] })
  expect(Date.parse(json.expires_at) - Date.parse(json.created_at)).toBe(3_600_000)
  expect((await list(customer))[0]).toEqual(shown)
})

test('a key with limited scopes grants all of them by default, fewer on request, and never more', async () => {
  const customer = await assay.signUp()
  const { api_key: key } = (await create(customer, { scopes: ['read', 'write', 'assay:sessions'] })).json
  expect(claimsOf((await issueWith(key)).json.access_token).scope).toBe('read write')
  expect(claimsOf((await issueWith(key, { scope: 'write' })).json.access_token).scope).toBe('write')
  for (const scope of ['read admin', 'READ', '*', 'assay:sessions', 'read write assay:account']) {
    const { status, json } = await issueWith(key, { scope })
    expect([scope, status, json.error]).toEqual([scope, 400, 'invalid_scope'])
  }
})

test.each([
  ['that may give any scope', ['*']],
  ['made without scopes', undefined],
  ['that may give none', []],
])('a key %s grants none by default', async (_, scopes) => {
  const customer = await assay.signUp()
  const { api_key: key } = (await create(customer, { scopes })).json
  const { access_token } = (await issueWith(key)).json
  expect(claimsOf(access_token)).not.toHaveProperty('scope')
  const form = { grant_type: 'client_credentials' }
  const { json } = await assay.postForm('/token', form, { Authorization: basic(customer.id, key) })
  expect(claimsOf(json.access_token)).not.toHaveProperty('scope')
})

test.each([
  ['the scope of the account', { scopes: ['read', 'assay:account'] }, 'invalid_scope'],
  ['a scope of ours that there is not', { scopes: ['assay:everything'] }, 'invalid_scope'],
  ['a scope with a space', { scopes: ['read write'] }, 'invalid_request'],
  ['a scope with a quote', { scopes: ['a"b'] }, 'invalid_request'],
  ['an empty scope', { scopes: [''] }, 'invalid_request'],
  ['51 scopes', { scopes: Array.from({ length: 51 }, (_, i) => `s${i}`) }, 'invalid_request'],
  ['a name of 101 characters', { name: 'n'.repeat(101) }, 'invalid_request'],
  ['a name with a control character', { name: 'a\u0000b' }, 'invalid_request'],
  ['no life', { expires_in: 0 }, 'invalid_request'],
  ['half a second', { expires_in: 0.5 }, 'invalid_request'],
  ['more than ten years', { expires_in: 315_360_001 }, 'invalid_request'],
  ['a member that is not known', { customer_id: 'a' }, 'invalid_request'],
])('a key with %s is refused', async (_, body, error) => {
  const customer = await assay.signUp()
  const { status, json } = await create(customer, body)
  expect([status, json.error]).toEqual([400, error])
  expect(await list(customer)).toHaveLength(1)
})

test('a key that another replica has just created works here at once', async () => {
  const customer = await assay.signUp()
  // This replica's record is older than the key.
  expect((await assay.verify(customer.accessToken)).status).toBe(200)
  const { api_key: key } = (await create(customer, {}, other)).json
  expect(await statusOf(issueWith(key))).toBe(200)
})

test('a deleted key is refused here at once, and elsewhere after a poll', async () => {
  const customer = await assay.signUp()
  const { id, api_key: key } = (await create(customer)).json
  for (const replica of [assay, other]) expect(await statusOf(issueWith(key, {}, replica))).toBe(200)
  const issued = (await issueWith(key)).json.access_token
  expect((await remove(customer, id)).status).toBe(204)
  expect((await issueWith(key)).json.error).toBe('invalid_client')
  expect((await assay.postForm('/introspect', { token: issued }, bearer(key))).status).toBe(401)
  await sync(other)
  expect((await other.postForm('/introspect', { token: issued }, bearer(key))).status).toBe(401)
  expect(await list(customer)).toHaveLength(1)
  // Tokens it issued remain valid, and so do the other keys.
  expect((await assay.verify(issued)).status).toBe(200)
  expect((await customer.issue()).status).toBe(200)
  expect((await remove(customer, id)).status).toBe(404)
})

test('with wait=all a deleted key is refused on every replica once the answer has arrived', async () => {
  const customer = await assay.signUp()
  const { id, api_key: key } = (await create(customer)).json
  const token = customer.accessToken
  const ask = () => other.postForm('/introspect', { token }, bearer(key))
  expect((await ask()).json.active).toBe(true)
  expect((await remove(customer, id, '?wait=all')).status).toBe(204)
  expect((await ask()).status).toBe(401)
})

test("a key can't be deleted by another customer, nor by its name", async () => {
  const customer = await assay.signUp()
  const { id, api_key: key } = (await create(customer, { name: 'mine' })).json
  const stranger = await assay.signUp()
  expect((await remove(stranger, id)).status).toBe(404)
  expect((await remove(customer, 'mine')).status).toBe(404)
  expect(await statusOf(issueWith(key))).toBe(200)
  expect((await list(stranger)).map((listed: { id: string }) => listed.id)).not.toContain(id)
})

test('a key is refused from the moment it expires', async () => {
  const customer = await assay.signUp()
  const { api_key: key, expires_at } = (await create(customer, { expires_in: 30 })).json
  const end = Date.parse(expires_at)
  await stopClock(world, new Date(end - 5_000), [assay])
  expect(await statusOf(issueWith(key))).toBe(200)
  // This replica may consider it valid for some milliseconds more: the database decides.
  await stopClock(world, new Date(end), [])
  expect((await issueWith(key)).json.error).toBe('invalid_client')
  await sync(assay)
  const { status, json } = await assay.postForm('/introspect', { token: customer.accessToken }, bearer(key))
  expect([status, json.error]).toEqual([401, 'invalid_client'])
  await world.advance(0)
})

test('the last use of a key is stored, at most once a minute', async () => {
  const customer = await assay.signUp()
  const lastUsed = async (used: Replica) => {
    expect(await statusOf(issueWith(customer.apiKey, {}, used))).toBe(200)
    await used.clients.flush()
    return (await list(customer))[0].last_used_at
  }
  expect((await list(customer))[0]).not.toHaveProperty('last_used_at')
  const first = await lastUsed(assay)
  expect(Date.parse(first)).not.toBeNaN()
  await world.advance(30_000)
  expect(await lastUsed(assay)).toBe(first)
  expect(await lastUsed(other)).toBe(first)
  await world.advance(31_000)
  const later = await lastUsed(await world.replica())
  expect(Date.parse(later) - Date.parse(first)).toBeGreaterThanOrEqual(60_000)
})

test('a key that is refused does not count as used', async () => {
  const customer = await assay.signUp()
  const forged = customer.apiKey.replace(/_[A-Za-z0-9]{43}_/, `_${'A'.repeat(43)}_`)
  expect(await statusOf(issueWith(forged))).toBe(401)
  await assay.clients.flush()
  expect((await list(customer))[0]).not.toHaveProperty('last_used_at')
})

/** Adds keys until the customer has `count`, without waiting for the rate limit. */
const fill = (customer: Customer, count: number) =>
  world.admin.query(
    `with counted as (update assay.customers set api_keys = $2::int where id = $1)
    insert into assay.api_keys (id, customer_id, scope, digest, created_at)
    select id || n, customer_id, '', digest, created_at
    from assay.api_keys, generate_series(2, $2::int) n where customer_id = $1`,
    [customer.id, count],
  )

test('a customer has at most a hundred keys, and can make another after deleting one', async () => {
  const customer = await assay.signUp()
  await fill(customer, 99)
  const { status, json } = await create(customer)
  expect(status).toBe(201)
  const refused = await create(customer)
  expect([refused.status, refused.json.error]).toEqual([409, 'conflict'])
  expect((await remove(customer, json.id)).status).toBe(204)
  expect((await create(customer)).status).toBe(201)
})

/** Holds every act at its audit row, when the rest of it is done, until `count` of them wait there or earlier. Postgres only. */
async function holdActs(count: number) {
  if (world.url === undefined) return
  const sql = control(world.url)
  await sql.unsafe(`select pg_advisory_lock(100);
    create function assay.wait() returns trigger language plpgsql
      as 'begin perform pg_advisory_xact_lock_shared(100); return new; end';
    create trigger wait before insert on assay.audit_events for each row execute function assay.wait()`)
  const waiting = async () =>
    (
      await sql.unsafe(`select from pg_stat_activity
        where datname = current_database() and wait_event_type = 'Lock'`)
    ).length
  return async () => {
    const deadline = performance.now() + 3_000
    while ((await waiting()) < count && performance.now() < deadline);
    await sql.unsafe('select pg_advisory_unlock(100)')
    await sql.end()
  }
}

test('concurrent requests cannot exceed the limit of keys', async () => {
  const customer = await assay.signUp()
  await fill(customer, 98)
  const release = await holdActs(5)
  const made = Promise.allSettled(Array.from({ length: 5 }, () => create(customer)))
  await release?.()
  await made
  expect(await list(customer)).toHaveLength(100)
})
