import { afterAll, beforeAll, expect, test } from 'vitest'
import { rotateAgedKeys } from '../../server/keys/rotation.ts'
import { setState } from '../support/plant.ts'
import {
  ALICE,
  bearer,
  type Customer,
  claimsOf,
  makeWorld,
  type Replica,
  type World,
} from '../support/world.ts'

let world: World
let here: Replica
let there: Replica

beforeAll(async () => {
  world = await makeWorld()
  here = await world.replica()
  there = await world.replica()
})
afterAll(() => world.stop())

const DAY = 86_400_000

const rotate = (customer: Customer, body: object = {}, assay = here) =>
  assay.postJson('/api/secrets/rotate', body, bearer(customer.accessToken))
const secrets = async (customer: Customer, token = customer.accessToken) =>
  (await here.get('/api/secrets', token)).json.secrets as { use: string; version: number; state: string }[]
const states = async (customer: Customer, token?: string) =>
  (await secrets(customer, token)).map(({ use, version, state }) => `${use} ${version} ${state}`)
const kidOf = (token: string) =>
  JSON.parse(Buffer.from(token.split('.')[0]!, 'base64url').toString()).kid as string

test('a rotation ends nothing: old tokens remain valid, new ones have the new version', async () => {
  const customer = await here.signUp()
  const old = await customer.session()
  const rotated = await rotate(customer)
  expect(rotated.json).toEqual({
    versions: [
      { use: 'access', version: 2 },
      { use: 'refresh', version: 2 },
    ],
  })
  for (const assay of [here, there]) expect((await assay.verify(old.access_token)).status).toBe(200)
  const refreshed = await there.refresh(old.refresh_token)
  expect(refreshed.status).toBe(200)
  expect(kidOf(refreshed.json.access_token)).toContain('.a2.')
  expect(kidOf(refreshed.json.refresh_token)).toContain('.r2.')
  for (const assay of [here, there])
    expect((await assay.verify(refreshed.json.access_token)).status).toBe(200)
  expect(await states(customer)).toEqual([
    'access 2 current',
    'access 1 previous',
    'refresh 2 current',
    'refresh 1 previous',
  ])
})

test('a refresh response lost before a rotation is replayed after it with the same refresh token', async () => {
  const customer = await here.signUp()
  const { refresh_token } = await customer.session()
  const lost = await here.refresh(refresh_token)
  await rotate(customer, { use: 'refresh' })
  const retried = await there.refresh(refresh_token)
  expect(retried.json.refresh_token).toBe(lost.json.refresh_token)
})

test('an emergency rotation of access ends every older access token everywhere, and no session', async () => {
  const customer = await here.signUp()
  const old = await customer.session()
  const { json, status } = await rotate(customer, { use: 'access', now: true })
  expect(status).toBe(200)
  expect(Date.parse(json.effective_at)).toBeLessThanOrEqual(here.changeFeed.now())
  for (const assay of [here, there]) expect((await assay.verify(old.access_token)).status).toBe(401)
  const refreshed = await there.refresh(old.refresh_token)
  expect(refreshed.status).toBe(200)
  expect((await here.verify(refreshed.json.access_token)).status).toBe(200)
})

test.each(['refresh', 'both'])(
  'an emergency rotation of %s ends every session and every access token',
  async use => {
    const customer = await here.signUp()
    const old = await customer.session()
    const alone = (await customer.issue()).json
    // The account's own session is the second one.
    const dryRun = await rotate(customer, { use, now: true, dry_run: true })
    expect(dryRun.json).toEqual({ would_end: { sessions: 2, tokens: 3, partial: false } })
    expect((await rotate(customer, { use, now: true })).status).toBe(200)
    for (const assay of [here, there]) {
      expect((await assay.verify(alone.access_token)).status).toBe(401)
      expect((await assay.verify(old.access_token)).status).toBe(401)
      expect((await assay.refresh(old.refresh_token)).json.error).toBe('invalid_grant')
    }
    const again = await here.postJson('/api/auth/login', {
      email: customer.email,
      password: customer.password,
    })
    expect((await there.verify(again.json.access_token)).status).toBe(200)
  },
)

test('a dry run reports what an emergency rotation would end, and ends nothing', async () => {
  const customer = await here.signUp()
  const one = await customer.session()
  await customer.session({ subject: 'user-2' })
  const { json } = await rotate(customer, { now: true, dry_run: true })
  expect(json).toEqual({ would_end: { sessions: 3, tokens: 3, partial: false } })
  expect((await rotate(customer, { dry_run: true })).json).toEqual({
    would_end: { sessions: 0, tokens: 0, partial: false },
  })
  expect((await here.verify(one.access_token)).status).toBe(200)
  expect(await states(customer)).toEqual(['access 1 current', 'refresh 1 current'])
})

test('twenty concurrent rotations leave one current secret per use, and no gap', async () => {
  const customer = await here.signUp()
  const answers = await Promise.all(
    Array.from({ length: 20 }, (_, i) => rotate(customer, {}, i % 2 ? here : there)),
  )
  const done = answers.filter(({ status }) => status === 200).length
  expect(answers.every(({ status }) => status === 200 || status === 409)).toBe(true)
  const all = await secrets(customer)
  expect(all.filter(({ state }) => state === 'current').map(({ version }) => version)).toEqual([
    done + 1,
    done + 1,
  ])
  expect(all).toHaveLength(2 * (done + 1))
})

test('a version is retired once no live token can have it, and its tokens are refused', async () => {
  const customer = await here.signUp()
  const { refresh_token } = await customer.session()
  await rotate(customer)
  await world.maintain()
  expect(await states(customer)).toContain('refresh 1 previous')
  await world.advance(25 * 3_600_000)
  const login = await here.postJson('/api/auth/login', { email: customer.email, password: customer.password })
  await world.maintain()
  expect(await states(customer, login.json.access_token)).toEqual([
    'access 2 current',
    'access 1 retired',
    'refresh 2 current',
    'refresh 1 previous',
  ])
  expect((await here.refresh(refresh_token)).status).toBe(200)
})

test('a refresh secret is retired when its last session has moved on', async () => {
  const customer = await here.signUp()
  await rotate(customer, { use: 'refresh' })
  let { refreshToken } = customer
  for (let i = 0; i < 2; i++) {
    refreshToken = (await here.refresh(refreshToken)).json.refresh_token
    await world.advance(3_600_000)
  }
  await world.maintain()
  const { access_token } = (await here.refresh(refreshToken)).json
  expect(await states(customer, access_token)).toContain('refresh 1 retired')
})

test('a secret older than KEY_MAX_AGE is rotated automatically', async () => {
  const customer = await here.signUp()
  await world.advance(91 * DAY)
  await world.maintain()
  const login = await here.postJson('/api/auth/login', { email: customer.email, password: customer.password })
  expect(await states(customer, login.json.access_token)).toContain('access 2 current')
})

test('rotation by age adds no version at the limit of verifying versions, until some have retired', async () => {
  const customer = await here.signUp()
  const versions = () =>
    world.admin.query<{ state: string }>(
      `select state from assay.signing_keys where customer_id = $1 and use = 'refresh'`,
      [customer.id],
    )
  await world.admin.query(
    `insert into assay.signing_keys (customer_id, use, version, state, alg, sealed_secret, created_at, replaced_at)
    select customer_id, use, 100 + n, 'previous', alg, sealed_secret, created_at, assay.now()
    from assay.signing_keys, generate_series(1, 40) as n where customer_id = $1 and use = 'refresh'`,
    [customer.id],
  )
  await world.advance(91 * DAY)
  await here.clockWatch.observe()
  await rotateAgedKeys(here, 90 * 86_400)
  expect(await versions()).toHaveLength(41)
  await world.admin.query(
    `update assay.signing_keys set state = 'retired', retired_at = assay.now()
    where customer_id = $1 and use = 'refresh' and version = 101`,
    [customer.id],
  )
  await rotateAgedKeys(here, 90 * 86_400)
  expect((await versions()).filter(({ state }) => state === 'previous')).toHaveLength(40)
  expect(await versions()).toHaveLength(42)
})

test('a token issued before a revocation of its subject is refused, one issued after it is not', async () => {
  const customer = await here.signUp()
  const old = await customer.session({ subject: 'ann/1' })
  const other = await customer.session({ subject: 'bob' })
  const revoked = await here.postJson(
    '/api/subjects/revoke?wait=all',
    { subject: 'ann/1' },
    bearer(customer.apiKey),
  )
  expect(revoked.status).toBe(204)
  for (const assay of [here, there]) {
    expect((await assay.verify(old.access_token)).status).toBe(401)
    expect((await assay.refresh(old.refresh_token)).status).toBe(400)
    expect((await assay.verify(other.access_token)).status).toBe(200)
  }
  const renewed = await customer.session({ subject: 'ann/1' })
  expect((await there.verify(renewed.access_token)).status).toBe(200)
  expect(claimsOf(renewed.access_token).ep).not.toBe(claimsOf(old.access_token).ep)
})

test('a customer can end all of its tokens and sessions at once', async () => {
  const customer = await here.signUp()
  const { access_token } = await customer.session()
  const ended = await here.request('/api/sessions?wait=all', {
    method: 'DELETE',
    headers: bearer(customer.accessToken),
  })
  expect(ended.status).toBe(204)
  for (const token of [access_token, customer.accessToken])
    expect((await there.verify(token)).status).toBe(401)
})

test('a request with strong consistency is answered from state no older than itself', async () => {
  const customer = await here.signUp()
  const { access_token: token } = await customer.session()
  expect((await there.verify(token)).status).toBe(200)
  await here.postForm('/revoke', { token }, bearer(customer.apiKey))
  const strict = await there.get('/verify', token, { 'X-Consistency': 'strict' })
  expect(strict.status).toBe(401)
  expect(Number(strict.headers.get('x-assay-age'))).toBeGreaterThanOrEqual(0)
})

test('an access token issued during an emergency rotation is signed by the new secret', async () => {
  const customer = await here.signUp()
  await rotate(customer, { use: 'access', now: true })
  const key = await there.keys.signingKey(customer.id, 'access', 1)
  expect(key.version).toBe(2)
})

test('a disabled or deleted customer rotates nothing', async () => {
  const customer = await here.signUp()
  // Before the replica has read the change: the statement itself refuses.
  await world.admin.query(`update assay.customers set state = 'disabled' where id = $1`, [customer.id])
  const refused = await rotate(customer, { now: true })
  expect([refused.status, refused.json.error]).toEqual([401, 'invalid_token'])
  await setState(world, customer.id, 'disabled', [here])
  expect((await rotate(customer)).status).toBe(401)
  await setState(world, customer.id, 'active', [here])
  expect(await states(customer)).toEqual(['access 1 current', 'refresh 1 current'])
  await world.admin.query('delete from assay.customers where id = $1', [customer.id])
  expect((await rotate(customer)).json.error).toBe('invalid_token')
})

test('two replicas that find the same old secret rotate it once', async () => {
  const customer = await here.signUp()
  await world.advance(91 * DAY)
  await here.clockWatch.observe()
  await Promise.all([here, there].map(replica => rotateAgedKeys(replica, 90 * 86_400)))
  const login = await here.postJson('/api/auth/login', { email: customer.email, password: customer.password })
  expect(await states(customer, login.json.access_token)).toContain('access 2 current')
})

test('a customer whose secrets cannot be decrypted does not prevent the rotation of others', async () => {
  const [broken, healthy] = [await here.signUp(), await here.signUp()]
  await world.advance(91 * DAY)
  await world.admin.query('update assay.customers set sealed_data_key = $2 where id = $1', [
    broken.id,
    Buffer.alloc(150, 1),
  ])
  for (let rounds = 0; rounds < 2; rounds++) await world.maintain()
  const login = await here.postJson('/api/auth/login', { email: healthy.email, password: healthy.password })
  expect(await states(healthy, login.json.access_token)).toContain('access 2 current')
})

test('the number of verifying versions is limited, at twenty rotations of both secrets', async () => {
  const customer = await here.signUp()
  const answers = []
  for (let rotations = 0; rotations < 22; rotations++) answers.push((await rotate(customer)).status)
  expect(answers).toEqual([...Array(20).fill(200), 409, 409])
  expect((await there.verify(customer.accessToken)).status).toBe(200)
})

test("a session that ended with its subject's revocation is no longer listed", async () => {
  const customer = await here.signUp()
  await customer.session({ subject: 'eve' })
  await here.postJson('/api/subjects/revoke', { subject: 'eve' }, bearer(customer.apiKey))
  expect((await here.get('/api/sessions?subject=eve', customer.accessToken)).json).toEqual({ sessions: [] })
})

test('dead rows are deleted, and live ones are kept', async () => {
  const customer = await here.signUp()
  const { access_token: token } = await customer.session()
  await here.postForm('/revoke', { token }, bearer(customer.apiKey))
  const rows = async () =>
    (
      await world.admin.query<{ count: number }>(
        'select count(*) from assay.revocations where customer_id = $1',
        [customer.id],
      )
    )[0]!.count
  await world.maintain()
  expect(await rows()).toBe(1)
  await world.advance(2 * 3_600_000)
  await world.maintain()
  expect(await rows()).toBe(0)
})

test('a customer that has used up its rotations delays neither its operator nor a service', async () => {
  const customer = await here.signUp()
  for (let i = 0; i < 30; i++) expect((await rotate(customer, { use: 'access' })).status).toBe(200)
  const { status, json } = await rotate(customer, { now: true })
  expect([status, json.error]).toEqual([429, 'too_many_requests'])
  const service = await here.postJson('/admin/services', { name: 'rotator', may: ['rotate'] }, bearer(ALICE))
  for (const credential of [ALICE, service.json.credential]) {
    const path = `/admin/customers/${customer.id}/secrets`
    expect((await here.postJson(`${path}/rotate`, { now: true }, bearer(credential))).status).toBe(200)
    const which = { use: 'access', version: 1 }
    expect((await here.postJson(`${path}/retire`, which, bearer(credential))).status).toBe(200)
  }
})

test("an operator rotates a disabled customer's secrets, so that leaked ones are not valid again once it is enabled", async () => {
  const customer = await here.signUp()
  const { access_token, refresh_token } = await customer.session()
  await setState(world, customer.id, 'disabled', [here, there])
  const path = `/admin/customers/${customer.id}`
  await here.setPolicy(customer.id, { signing_alg: 'EdDSA' })
  const rotated = await here.postJson(`${path}/secrets/rotate`, { now: true }, bearer(ALICE))
  expect(rotated.status).toBe(200)
  await setState(world, customer.id, 'active', [here, there])
  for (const assay of [here, there]) expect((await assay.verify(access_token)).status).toBe(401)
  expect((await here.refresh(refresh_token)).json.error).toBe('invalid_grant')
  const { json } = await customer.issue()
  for (const assay of [here, there]) expect((await assay.verify(json.access_token)).status).toBe(200)
})

test('an emergency rotation repairs a customer whose current key pair cannot be decrypted', async () => {
  const customer = await here.signUp()
  await here.setPolicy(customer.id, { signing_alg: 'EdDSA' })
  await world.admin.query(
    `update assay.signing_keys set sealed_secret = sha256('damaged') where customer_id = $1 and state = 'current' and use = 'access'`,
    [customer.id],
  )
  const path = `/admin/customers/${customer.id}/secrets/rotate`
  const { status } = await here.postJson(path, { use: 'access', now: true }, bearer(ALICE))
  expect(status).toBe(200)
  const { json } = await customer.issue()
  expect((await there.verify(json.access_token)).status).toBe(200)
  const kept = await world.admin.query(
    `select from assay.signing_keys where customer_id = $1 and state = 'retired' and length(sealed_secret) > 0
      and alg = 'EdDSA'`,
    [customer.id],
  )
  expect(kept).toEqual([])
})

test("many rotations of one customer's RSA keys delay another customer's signatures by one key at most", async () => {
  const [busy, quiet] = [await here.signUp(), await here.signUp()]
  await here.setPolicy(busy.id, { signing_alg: 'RS256' })
  await here.setPolicy(quiet.id, { signing_alg: 'EdDSA' })
  let done = 0
  const path = `/admin/customers/${busy.id}/secrets/rotate`
  const flood = Array.from({ length: 40 }, async () => {
    const { status } = await here.postJson(path, { use: 'access', now: true }, bearer(ALICE))
    done++
    return status
  })
  const issued = await quiet.issue()
  const [before, signed] = [done, await here.verify(issued.json.access_token)]
  expect([issued.status, signed.status]).toEqual([200, 200])
  expect(before).toBeLessThan(20)
  expect(new Set(await Promise.all(flood))).toEqual(new Set([200]))
})
