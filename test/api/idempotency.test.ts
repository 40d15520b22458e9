import { createHash } from 'node:crypto'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { apiKeyOf } from '../support/credentials.ts'
import { auditOf, countsOf, storedSession } from '../support/sessions.ts'
import { bearer, type Customer, claimsOf, makeWorld, type Replica, type World } from '../support/world.ts'

let world: World
let assay: Replica
let other: Replica
let customer: Customer
let made = 0

beforeAll(async () => {
  world = await makeWorld()
  assay = await world.replica()
  other = await world.replica()
  customer = await assay.signUp()
})
afterAll(() => world.stop())

const BODY = { subject: 'user-1', scope: 'read write', refresh: true }
const newKey = () => `order-${++made}`
const issue = (key: string, body: object = BODY) => customer.issue(body, { 'Idempotency-Key': key })

async function sessionsOf(subject: string): Promise<number> {
  const rows = await world.admin.query(
    'select 1 from assay.sessions where customer_id = $1 and subject = $2',
    [customer.id, subject],
  )
  return rows.length
}

test('a retry returns the same session, with the same refresh token and a new access token', async () => {
  const key = newKey()
  const first = await issue(key)
  const retry = await issue(key)
  expect([first.status, retry.status]).toEqual([200, 200])
  expect(retry.headers.get('cache-control')).toBe('no-store')
  const { access_token: _, ...same } = first.json
  expect(retry.json).toMatchObject(same)
  expect(retry.json.access_token).not.toBe(first.json.access_token)
  expect(claimsOf(retry.json.access_token).jti).not.toBe(claimsOf(first.json.access_token).jti)
  for (const { json } of [first, retry]) expect((await assay.verify(json.access_token)).status).toBe(200)
  expect(await countsOf(world, first.json.session_id)).toEqual({ 'token.issued': 1, 'session.replayed': 1 })
})

test('without the key, the same body starts another session', async () => {
  const [one, two] = [await customer.issue(BODY), await customer.issue(BODY)]
  expect(one.json.session_id).not.toBe(two.json.session_id)
})

test('the answer to a retry also has everything that was requested', async () => {
  const key = newKey()
  const body = { ...BODY, audience: ['a', 'b'], expires_in: 77, claims: { plan: 'pro', n: [1, null] } }
  await issue(key, body)
  const { json } = await issue(key, body)
  expect(json.expires_in).toBe(77)
  expect(claimsOf(json.access_token)).toMatchObject({
    sub: 'user-1',
    aud: ['a', 'b'],
    claims: body.claims,
    gen: 1,
  })
})

test('another body under the same key is refused, and the session is unchanged', async () => {
  const key = newKey()
  const first = await issue(key)
  for (const body of [
    { ...BODY, subject: 'user-2' },
    { ...BODY, scope: 'read' },
    { ...BODY, expires_in: 60 },
    { ...BODY, claims: {} },
  ]) {
    const { status, json } = await issue(key, body)
    expect([status, json.error]).toEqual([400, 'invalid_request'])
  }
  expect((await issue(key)).json.refresh_token).toBe(first.json.refresh_token)
  expect((await assay.refresh(first.json.refresh_token)).status).toBe(200)
})

test('once the session was refreshed the key is a conflict', async () => {
  const key = newKey()
  const { json } = await issue(key)
  await assay.refresh(json.refresh_token)
  const retry = await issue(key)
  expect([retry.status, retry.json.error]).toEqual([409, 'conflict'])
  expect((await storedSession(world, json.session_id)).gen).toBe(2)
})

test('once the session has ended the key is a conflict', async () => {
  const key = newKey()
  const { json } = await issue(key)
  await assay.postForm('/revoke', { token: json.refresh_token })
  const retry = await issue(key)
  expect([retry.status, retry.json.error]).toEqual([409, 'conflict'])
})

test('tokens returned to a retry end with the session', async () => {
  const key = newKey()
  const first = await issue(key)
  await world.advance(200_000)
  const retry = await issue(key)
  await assay.postForm('/revoke', { token: first.json.refresh_token })
  // Past the expiry of the first access token: the revocation must last as long as the second one.
  await world.advance(200_000)
  const late = await world.replica()
  for (const replica of [assay, other, late])
    expect((await replica.verify(retry.json.access_token)).status).toBe(401)
})

test('after ten minutes the key starts a new session, and the first continues', async () => {
  const key = newKey()
  const first = await issue(key)
  await world.advance(580_000)
  expect((await issue(key)).json.session_id).toBe(first.json.session_id)
  await world.advance(21_000)
  const second = await issue(key, { ...BODY, scope: 'read' })
  expect(second.status).toBe(200)
  expect(second.json.session_id).not.toBe(first.json.session_id)
  const retry = await issue(key, { ...BODY, scope: 'read' })
  expect(retry.json.refresh_token).toBe(second.json.refresh_token)
  for (const { json } of [first, second]) expect((await assay.refresh(json.refresh_token)).status).toBe(200)
})

test('two customers may use the same key', async () => {
  const neighbour = await assay.signUp()
  const key = newKey()
  const own = await issue(key)
  const theirs = await neighbour.issue({ ...BODY, subject: 'another' }, { 'Idempotency-Key': key })
  expect(theirs.status).toBe(200)
  expect(claimsOf(theirs.json.access_token)).toMatchObject({ client_id: neighbour.id, sub: 'another' })
  expect((await issue(key)).json.refresh_token).toBe(own.json.refresh_token)
})

test('twenty concurrent requests with one key create one session, with the same refresh token for all', async () => {
  for (let round = 0; round < 5; round++) {
    const key = newKey()
    const body = { ...BODY, subject: `racer-${round}` }
    const headers = { 'Idempotency-Key': key, ...bearer(customer.apiKey) }
    const answers = await Promise.all(
      Array.from({ length: 20 }, (_, nth) => [assay, other][nth % 2]!.postJson('/issue', body, headers)),
    )
    expect(answers.map(({ status }) => status)).toEqual(Array(20).fill(200))
    expect(new Set(answers.map(({ json }) => json.refresh_token)).size).toBe(1)
    expect(new Set(answers.map(({ json }) => json.access_token)).size).toBe(20)
    expect(await sessionsOf(body.subject)).toBe(1)
    const { session_id } = answers[0]!.json
    expect(await countsOf(world, session_id)).toEqual({ 'token.issued': 1, 'session.replayed': 19 })
  }
})

test('twenty concurrent requests with one key and several bodies create one session', async () => {
  const key = newKey()
  const answers = await Promise.all(
    Array.from({ length: 20 }, (_, nth) => issue(key, { ...BODY, subject: `mixed-${nth % 4}` })),
  )
  const statuses = answers.map(({ status }) => status)
  expect(statuses.filter(status => status === 200)).toHaveLength(5)
  expect(statuses.filter(status => status === 400)).toHaveLength(15)
  const started = await Promise.all([0, 1, 2, 3].map(nth => sessionsOf(`mixed-${nth}`)))
  expect(started.reduce((sum, count) => sum + count)).toBe(1)
})

test("a narrower API key cannot get more scopes through a wider one's idempotency key", async () => {
  const wide = await apiKeyOf(assay, customer, { scopes: ['read', 'write'] })
  const narrow = await apiKeyOf(assay, customer, { scopes: ['read'] })
  const headers = { 'Idempotency-Key': newKey() }
  const body = { subject: 'user-1', refresh: true }
  const first = await assay.postJson('/issue', body, { ...headers, ...bearer(wide.api_key) })
  expect(first.json.scope).toBe('read write')
  const { status, json } = await assay.postJson('/issue', body, { ...headers, ...bearer(narrow.api_key) })
  expect(status).toBeLessThan(500)
  expect(json.scope ?? '').not.toContain('write')
})

test('an idempotency key is 1 to 255 visible characters', async () => {
  for (const key of ['', ' ', 'a b', 'x'.repeat(256), 'clé'])
    expect((await issue(key)).json.error, key).toBe('invalid_request')
  expect((await issue('x'.repeat(255))).status).toBe(200)
})

test('neither the key, nor the body, nor any part of the answer is stored', async () => {
  const key = 'canary-key-5512'
  const { json } = await issue(key, { ...BODY, claims: { canary: 'canary-claim' } })
  await issue(key, { ...BODY, claims: { canary: 'canary-claim' } })
  const held = await world.admin.query<{ row: string }>('select i::text as row from assay.idempotency_keys i')
  const everything = (await allRows()).join('\n')
  expect(everything).toContain(json.session_id)
  expect(held.map(({ row }) => row).join()).not.toMatch(/canary|user-1|read write/)
  for (const secret of [key, json.refresh_token, json.access_token, json.refresh_token.split('.')[2]])
    for (const encoding of ['utf8', 'hex', 'base64'] as const)
      expect(everything).not.toContain(Buffer.from(secret).toString(encoding))
  expect(everything).toContain(createHash('sha256').update(key).digest('hex'))
  expect(assay.lines.join()).not.toContain(key)
  expect((await auditOf(world, json.session_id)).map(({ type }) => type)).toEqual([
    'token.issued',
    'session.replayed',
  ])
})

/** Every row of every table, as text. */
async function allRows(): Promise<string[]> {
  const tables = await world.admin.query<{ name: string }>(
    `select format('%I.%I', schemaname, tablename) as name from pg_tables where schemaname = 'assay'`,
  )
  const rows = await Promise.all(
    tables.map(({ name }) => world.admin.query<{ row: string }>(`select t::text as row from ${name} t`)),
  )
  return rows.flat().map(({ row }) => row)
}
