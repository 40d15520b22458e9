import { randomBytes } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { open, seal } from '../../server/crypto/envelope.ts'
import { DATA_KEY_ID, dataKeyContext } from '../../server/keys/customer-keys.ts'
import { mutations } from '../crypto/mutate.ts'
import { forger } from '../support/forge.ts'
import { forgetBatches } from '../support/forget-batches.ts'
import { holding, POLL, replicaOn } from '../support/holding.ts'
import { publishCustomer, setState, stopClock, sync } from '../support/plant.ts'
import { SEED, trials } from '../support/trials.ts'
import {
  ADMIN_TOKEN,
  ALICE,
  bearer,
  type Customer,
  makeWorld,
  type Replica,
  type Tokens,
  type World,
} from '../support/world.ts'

/** A cached token is checked on every request, like one that is not cached. */

let world: World
let here: Replica
let there: Replica

beforeAll(async () => {
  world = await makeWorld()
  here = await world.replica()
  there = await world.replica()
})
afterAll(() => world.stop())

const NONE = { hit: 0, miss: 0, rekeyed: 0 }

/** The token cache counters of a replica. */
async function counts({ request }: Pick<Replica, 'request'>): Promise<typeof NONE> {
  const { text } = await request('/metrics', { headers: bearer(ADMIN_TOKEN) })
  const found = text.matchAll(/^assay_token_cache_total\{outcome="(\w+)"\} (\d+)$/gm)
  return Object.fromEntries([...found].map(([, outcome, count]) => [outcome, Number(count)])) as typeof NONE
}

async function growth(replica: Replica, act: () => Promise<unknown>): Promise<typeof NONE> {
  const before = await counts(replica)
  await act()
  const { hit, miss, rekeyed } = await counts(replica)
  return { hit: hit - before.hit, miss: miss - before.miss, rekeyed: rekeyed - before.rekeyed }
}

/** A session whose access token both replicas have accepted and cached. */
async function cached(customer: Customer, body: object = {}): Promise<Tokens> {
  const tokens = await customer.session(body)
  for (const replica of [here, there]) {
    for (let i = 0; i < 2; i++) expect((await replica.verify(tokens.access_token)).status).toBe(200)
    const again = await growth(replica, () => replica.verify(tokens.access_token))
    expect(again).toEqual({ ...NONE, hit: 1 })
  }
  return tokens
}

/** The answers of every endpoint to an access token. */
async function statusesOf(replica: Replica, customer: Customer, token: string) {
  const { json } = await replica.postJson('/introspect/batch', { tokens: [token] }, bearer(customer.apiKey))
  return {
    verify: (await replica.verify(token)).status,
    introspect: (await replica.introspect(token)).json.active,
    self: (await replica.get('/introspect', token)).json.active,
    batch: json.tokens?.[0].active,
    me: (await replica.get('/api/auth/me', token)).status,
  }
}

const ACCEPTED = { verify: 200, introspect: true, self: true, batch: true, me: 403 }
const REFUSED = { verify: 401, introspect: false, self: false, batch: false, me: 401 }

test('one cache serves every endpoint that verifies an access token', async () => {
  const customer = await here.signUp()
  const { access_token } = await customer.session()
  const counted = await growth(here, async () => {
    expect(await statusesOf(here, customer, access_token)).toEqual(ACCEPTED)
  })
  expect(counted).toEqual({ hit: 3, miss: 2, rekeyed: 0 })
})

test('a cached token gets the same answer as an uncached one', async () => {
  const customer = await here.signUp()
  const body = { audience: ['a', 'b'], claims: { role: 'admin', 名: ['é', { deep: [1.5, null] }] } }
  const { access_token } = await customer.session(body)
  const answers = []
  for (const replica of [here, here, here, there]) {
    const { status, headers } = await replica.verify(access_token)
    const { json } = await replica.introspect(access_token)
    const about = [...headers].filter(([name]) => name.startsWith('x-auth-'))
    answers.push({ status, about, json })
  }
  expect(answers[0]).toMatchObject({
    status: 200,
    json: { active: true, aud: ['a', 'b'], claims: body.claims },
  })
  for (const answer of answers) expect(answer).toEqual(answers[0])
})

type Ending = (customer: Customer, tokens: Tokens) => Promise<{ status: number }>

const admin = (customer: Customer, method: string, path = '') =>
  here.request(`/admin/customers/${customer.id}${path}`, { method, headers: bearer(ALICE) })

/** Every act that narrows what is accepted. */
const ENDINGS: Record<string, Ending> = {
  'the token is revoked': ({ apiKey }, { access_token }) =>
    here.postForm('/revoke', { token: access_token }, bearer(apiKey)),
  'its session is ended': ({ apiKey }, { session_id }) =>
    here.request(`/api/sessions/${session_id}`, { method: 'DELETE', headers: bearer(apiKey) }),
  'its subject is revoked': ({ apiKey }) =>
    here.postJson('/api/subjects/revoke', { subject: 'user-1' }, bearer(apiKey)),
  'its customer ends all sessions': ({ accessToken }) =>
    here.request('/api/sessions', { method: 'DELETE', headers: bearer(accessToken) }),
  'its customer rotates the access key now': ({ accessToken }) =>
    here.postJson('/api/secrets/rotate', { use: 'access', now: true }, bearer(accessToken)),
  'its customer rotates both keys now': ({ accessToken }) =>
    here.postJson('/api/secrets/rotate', { now: true }, bearer(accessToken)),
  'its customer is disabled': customer => admin(customer, 'POST', '/disable'),
  'its customer is erased': customer => admin(customer, 'DELETE'),
  'everyone is revoked': () => here.postJson('/admin/revoke', { everyone: true }, bearer(ALICE)),
}

describe.each(Object.entries(ENDINGS))('when %s', (_, end) => {
  test('H20 a cached token is refused, at once on the acting replica and elsewhere after the next poll', async () => {
    const customer = await here.signUp()
    const tokens = await cached(customer)
    expect((await end(customer, tokens)).status).toBeLessThan(300)
    expect((await here.verify(tokens.access_token)).status).toBe(401)
    expect((await here.introspect(tokens.access_token)).json).toEqual({ active: false })
    await sync(there)
    expect((await there.verify(tokens.access_token)).status).toBe(401)
    expect((await there.introspect(tokens.access_token)).json).toEqual({ active: false })
    // The reason is not only that it left the cache.
    for (let i = 0; i < 3; i++) expect((await there.verify(tokens.access_token)).status).toBe(401)
  })
})

test('H20 when its key is retired, a cached token is refused', async () => {
  const customer = await here.signUp()
  const { access_token } = await cached(customer)
  await here.postJson('/api/secrets/rotate', { use: 'access' }, bearer(customer.accessToken))
  expect((await here.verify(access_token)).status).toBe(200)
  const retire = `update assay.signing_keys set state = 'retired', retired_at = assay.now()
    where customer_id = $1 and use = 'access' and version = 1`
  await world.admin.query(retire, [customer.id])
  await publishCustomer(world, customer.id, [here, there])
  for (const replica of [here, there]) expect((await replica.verify(access_token)).status).toBe(401)
})

test('a disabled customer’s token is accepted again once the customer is enabled', async () => {
  const customer = await here.signUp()
  const { access_token } = await cached(customer)
  await setState(world, customer.id, 'disabled', [here, there])
  expect((await there.verify(access_token)).status).toBe(401)
  await setState(world, customer.id, 'active', [here, there])
  expect((await there.verify(access_token)).status).toBe(200)
})

test('after its key is reloaded, a token is authenticated once more, and hits the cache after that', async () => {
  const customer = await here.signUp()
  const { access_token } = await cached(customer)
  await publishCustomer(world, customer.id, [here, there])
  const verified = async () => expect((await there.verify(access_token)).status).toBe(200)
  expect(await growth(there, verified)).toEqual({ ...NONE, rekeyed: 1 })
  expect(await growth(there, verified)).toEqual({ ...NONE, hit: 1 })
})

/** Replaces the secret of the customer's first access key, as in a restored database that has diverged. */
async function replaceSecret(customerId: string) {
  const { keyRing } = world
  const [row] = await world.admin.query<{ sealed: Uint8Array }>(
    'select sealed_data_key as sealed from assay.customers where id = $1',
    [customerId],
  )
  const bytes = open(id => keyRing.masterKey(id), row!.sealed, dataKeyContext(keyRing, customerId))
  const context = {
    installation: keyRing.installationId,
    customer: customerId,
    purpose: 'access',
    version: 1,
  }
  await world.admin.query(
    `update assay.signing_keys set sealed_secret = $2 where customer_id = $1 and use = 'access' and version = 1`,
    [customerId, seal({ id: DATA_KEY_ID, bytes }, randomBytes(64), context)],
  )
  await publishCustomer(world, customerId, [here, there])
}

test('H20 a cached token does not outlive the secret that signed it, even if the kid stays the same', async () => {
  const customer = await here.signUp()
  const { access_token } = await cached(customer)
  await replaceSecret(customer.id)
  for (const replica of [here, there]) expect((await replica.verify(access_token)).status).toBe(401)
  const newer = await cached(customer)
  expect(newer.access_token.split('.')[0]).toBe(access_token.split('.')[0])
})

test('a rotation that ends nothing ends no cached token', async () => {
  const customer = await here.signUp()
  const { access_token } = await cached(customer)
  await here.postJson('/api/secrets/rotate', {}, bearer(customer.accessToken))
  const newer = await cached(customer)
  for (const replica of [here, there])
    for (const token of [access_token, newer.access_token])
      expect((await replica.verify(token)).status).toBe(200)
})

test('a policy change leaves issued tokens unchanged, cached or not', async () => {
  const customer = await here.signUp()
  const { access_token } = await cached(customer)
  const policy = await here.request(`/admin/customers/${customer.id}/policy`, {
    method: 'PUT',
    headers: { ...bearer(ALICE), 'Content-Type': 'application/json' },
    body: JSON.stringify({ scopes: ['other'], max_access_token_ttl: 60, access_token_ttl: 60 }),
  })
  expect(policy.status).toBe(200)
  const cold = await world.replica()
  const told = await Promise.all([here, there, cold].map(replica => replica.introspect(access_token)))
  expect(told.map(({ json }) => json.scope)).toEqual(['read write', 'read write', 'read write'])
})

test('H21 a token that expires in the cache is refused from its exp on, to the second', async () => {
  const customer = await here.signUp()
  const { access_token } = await cached(customer)
  const { exp } = (await here.introspect(access_token)).json
  await stopClock(world, new Date(exp * 1_000 - 2_000), [here])
  expect((await here.verify(access_token)).status).toBe(200)
  await stopClock(world, new Date(exp * 1_000), [here])
  expect((await here.verify(access_token)).status).toBe(401)
  await world.advance(0)
})

test('H11 a cached token that becomes a token from the future is refused until its iat', async () => {
  const customer = await here.signUp()
  const real = await forger(here, customer, 'access')
  const iat = Math.floor(here.changeFeed.now() / 1_000) + 600
  const early = real.withClaims({ iat, exp: iat + 600 })
  for (let i = 0; i < 2; i++) expect((await here.verify(early)).status).toBe(401)
  await world.advance(600_000)
  expect(await growth(here, () => here.verify(early))).toEqual({ ...NONE, hit: 1 })
  expect((await here.verify(early)).status).toBe(200)
})

test('without a lease a cached token is unknown, not valid', async () => {
  const customer = await here.signUp()
  const { access_token } = await customer.session()
  const database = holding(world.db)
  const replica = await replicaOn(world, database.db)
  for (let i = 0; i < 2; i++) expect((await replica.verify(access_token)).status).toBe(200)
  const held = database.hold(POLL)
  void replica.changeFeed.poll()
  await held.has
  replica.clock.ahead.monotonic += 10_000
  expect((await replica.verify(access_token)).status).toBe(503)
  held.release()
})

test('H16 a cached token, too, is of one kind only', async () => {
  const customer = await here.signUp()
  const { access_token, refresh_token } = await cached(customer)
  for (let i = 0; i < 3; i++) {
    expect(await statusesOf(here, customer, refresh_token)).toEqual({ ...REFUSED, batch: true })
    expect((await here.refresh(access_token)).json.error).toBe('invalid_grant')
  }
  expect((await here.introspect(refresh_token, `Bearer ${customer.apiKey}`)).json.active).toBe(true)
  expect((await here.introspect(refresh_token)).json).toEqual({ active: false })
})

const NEIGHBOURS = trials(100_000, 10_000)

test(`H09 ${NEIGHBOURS} near copies of a cached token are refused`, {
  timeout: 600_000,
}, async () => {
  const customer = await here.signUp()
  const { access_token } = await cached(customer)
  const texts = [...neighbours(access_token), ...mutations(access_token, SEED, NEIGHBOURS)].slice(
    0,
    NEIGHBOURS,
  )
  const accepted: number[] = []
  for (let first = 0; first < texts.length; first += 99) {
    await forgetBatches(here)
    const tokens = [access_token, ...texts.slice(first, first + 99)]
    const { json } = await here.postJson('/introspect/batch', { tokens }, bearer(customer.apiKey))
    const active: boolean[] = json.tokens.map((each: { active: boolean }) => each.active)
    expect(active).toHaveLength(tokens.length)
    expect(active[0]).toBe(true)
    for (const [i, each] of active.entries()) if (each && i > 0) accepted.push(first + i)
  }
  expect(accepted).toEqual([])
  const before = await counts(here)
  expect((await here.verify(access_token)).status).toBe(200)
  expect((await counts(here)).hit).toBe(before.hit + 1)
})

/** Variants at each position: one character changed, removed, added, or in the other case. */
function* neighbours(token: string) {
  for (let i = 0; i < token.length; i++) {
    const [before, here, after] = [token.slice(0, i), token[i]!, token.slice(i + 1)]
    yield before + (here === 'A' ? 'B' : 'A') + after
    yield before + after
    yield before + here + here + after
    const other = here === here.toLowerCase() ? here.toUpperCase() : here.toLowerCase()
    if (other !== here) yield before + other + after
  }
}

test('H14 refused tokens are not cached', async () => {
  const customer = await here.signUp()
  const { access_token } = await cached(customer)
  const gauge = async () =>
    Number(/^assay_tokens_cached (\d+)$/m.exec((await here.get('/metrics', ADMIN_TOKEN)).text)?.[1])
  const before = await gauge()
  expect(before).toBeGreaterThan(0)
  const [header, claims] = access_token.split('.')
  for (let i = 0; i < 50; i++) {
    const forged = `${header}.${claims}.${Buffer.alloc(64, i).toString('base64url')}`
    expect((await here.verify(forged)).status).toBe(401)
  }
  expect(await gauge()).toBe(before)
})

test('the metrics show how many tokens are cached, and their bytes', async () => {
  const replica = await world.replica()
  const read = async () => {
    const { text } = await replica.get('/metrics', ADMIN_TOKEN)
    const value = (name: string) => Number(new RegExp(`^${name} (\\S+)$`, 'm').exec(text)?.[1])
    return { tokens: value('assay_tokens_cached'), bytes: value('assay_token_cache_bytes') }
  }
  expect(await read()).toEqual({ tokens: 0, bytes: 0 })
  const customer = await replica.signUp()
  const { access_token } = await customer.session()
  await replica.verify(access_token)
  // A token is not worth caching for a single use.
  expect(await read()).toEqual({ tokens: 0, bytes: 0 })
  for (let i = 0; i < 3; i++) await replica.verify(access_token)
  const { tokens, bytes } = await read()
  expect(tokens).toBe(1)
  expect(bytes).toBeGreaterThan(access_token.length)
  expect(bytes).toBeLessThan(access_token.length + 2_000)
})
