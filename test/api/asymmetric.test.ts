import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { rotateAgedKeys } from '../../server/keys/rotation.ts'
import { hear, holding, LOADER, POLL, replicaOn } from '../support/holding.ts'
import {
  ALGORITHMS,
  accepts,
  asymmetric,
  headerOf,
  jwksOf,
  PUBLISHED_AHEAD_MS,
  pathOf,
  rotate,
} from '../support/local.ts'
import {
  ALICE,
  bearer,
  type Customer,
  claimsOf,
  makeWorld,
  type Replica,
  type World,
} from '../support/world.ts'

/** Access tokens with asymmetric signatures: their keys, their issuer, and the published metadata and JWKS. */

let world: World
let here: Replica
let there: Replica

beforeAll(async () => {
  world = await makeWorld()
  here = await world.replica()
  there = await world.replica()
})
afterAll(() => world.stop())

const secrets = async ({ id }: Customer) =>
  (await here.get(`/admin/customers/${id}/secrets`, ALICE)).json.secrets as {
    use: string
    version: number
    state: string
    alg: string
  }[]
const accessKeys = async (customer: Customer) =>
  (await secrets(customer))
    .filter(({ use }) => use === 'access')
    .map(({ version, state, alg }) => `${version} ${state} ${alg}`)
const verdicts = (token: string) =>
  Promise.all([here, there].map(async assay => (await assay.verify(token)).status))
/** Rotates a key as maintenance does. */
async function rotateByAge() {
  await here.clockWatch.observe()
  await rotateAgedKeys(here, 0)
}
const kids = async (token: string) => (await jwksOf(here, token)).keys.map(({ kid }) => kid!.split('.')[1])

describe.each(ALGORITHMS)('a customer whose signing_alg is %s', alg => {
  test('has tokens of that algorithm, which are verified here and elsewhere', async () => {
    const customer = await asymmetric(here, alg)
    const { access_token, refresh_token } = await customer.session()
    expect(headerOf(access_token)).toMatchObject({ alg, typ: 'at+jwt' })
    expect(headerOf(refresh_token)).toMatchObject({ alg: 'HS512' })
    expect(await verdicts(access_token)).toEqual([200, 200])
    const keys = await jwksOf(there, access_token)
    expect(keys.keys).toHaveLength(2)
    expect(keys.keys.every(key => key.alg === alg && key.use === 'sig' && key.d === undefined)).toBe(true)
    expect(await accepts(keys, access_token)).toBe(true)
  })

  test('keeps its earlier tokens and sessions', async () => {
    const customer = await here.signUp()
    const before = await customer.session()
    await here.setPolicy(customer.id, { signing_alg: alg })
    expect(await verdicts(before.access_token)).toEqual([200, 200])
    const after = (await there.refresh(before.refresh_token)).json
    expect(headerOf(after.access_token).alg).toBe(alg)
    expect(await verdicts(after.access_token)).toEqual([200, 200])
    expect(await accessKeys(customer)).toEqual([`3 next ${alg}`, `2 current ${alg}`, '1 previous HS512'])
  })

  test('rotates to the published next key, and publishes another', async () => {
    const customer = await asymmetric(here, alg)
    const old = (await customer.issue()).json.access_token
    const cached = await jwksOf(here, old)
    await world.advance(PUBLISHED_AHEAD_MS)
    const { json } = await rotate(here, customer)
    expect(json).toEqual({ versions: [{ use: 'access', version: 3 }], next: { version: 4, alg } })
    const fresh = (await customer.issue()).json.access_token
    expect(headerOf(fresh).kid).toContain('.a3.')
    expect(await verdicts(fresh)).toEqual([200, 200])
    expect(await accepts(cached, fresh)).toBe(true)
    expect(await kids(fresh)).toEqual(['a3', 'a2', 'a4'])
  })

  test('loses the old key everywhere in an emergency; verifiers with a cached JWKS already have the new one', async () => {
    const customer = await asymmetric(here, alg)
    const old = (await customer.issue()).json.access_token
    const cached = await jwksOf(here, old)
    const { json } = await rotate(here, customer, { use: 'access', now: true })
    expect(await verdicts(old)).toEqual([401, 401])
    const fresh = (await customer.issue()).json.access_token
    expect(await verdicts(fresh)).toEqual([200, 200])
    expect(await accepts(cached, fresh)).toBe(true)
    const published = await jwksOf(there, fresh)
    expect(await accepts(published, old)).toBe(false)
    expect(await kids(fresh)).toEqual(['a3', 'a4'])
    const { exp } = claimsOf(old)
    expect(json.local_verifiers.jwks_max_age).toBe(300)
    expect(Date.parse(json.local_verifiers.accept_until)).toBeGreaterThanOrEqual(exp * 1000)
  })
})

test('delays an ordinary rotation until verifiers have had time to load the next key', async () => {
  const customer = await asymmetric(here, 'EdDSA')
  const { status, json } = await rotate(here, customer)
  expect(status).toBe(409)
  expect(json.detail).toMatch(
    /^the next access key was published only recently, .* try again in (1800|1799) s, rotate only refresh, or, if/,
  )
  expect((await rotate(here, customer, { use: 'refresh' })).status).toBe(200)
  await world.advance(PUBLISHED_AHEAD_MS)
  expect((await rotate(here, customer)).status).toBe(200)
})

test('publishes another asymmetric algorithm first, and signs with it thirty minutes later', async () => {
  const customer = await asymmetric(here, 'EdDSA')
  const old = (await customer.issue()).json.access_token
  await here.setPolicy(customer.id, { signing_alg: 'ES256' })
  expect(await accessKeys(customer)).toEqual([
    '4 next ES256',
    '3 retired EdDSA',
    '2 current EdDSA',
    '1 previous HS512',
  ])
  const cached = await jwksOf(here, old)
  await rotateByAge()
  expect(headerOf((await customer.issue()).json.access_token).alg).toBe('EdDSA')
  await world.advance(PUBLISHED_AHEAD_MS + 1_000)
  await rotateByAge()
  const fresh = (await customer.issue()).json.access_token
  expect(headerOf(fresh).alg).toBe('ES256')
  expect(await accepts(cached, fresh)).toBe(true)
  expect(await verdicts(fresh)).toEqual([200, 200])
  await rotateByAge()
  expect(headerOf((await customer.issue()).json.access_token).kid).toBe(headerOf(fresh).kid)
})

test('can return to HMAC at once: the keys are published as long as they verify', async () => {
  const customer = await asymmetric(here, 'RS256')
  const old = (await customer.issue()).json.access_token
  await here.setPolicy(customer.id, {})
  const fresh = (await customer.issue()).json.access_token
  expect(headerOf(fresh).alg).toBe('HS512')
  expect(claimsOf(fresh).iss).toBe(world.config.issuer)
  expect(await verdicts(old)).toEqual([200, 200])
  expect(await verdicts(fresh)).toEqual([200, 200])
  expect(await kids(old)).toEqual(['a2'])
})

describe('a replica that has not read a rotation yet', () => {
  /** It has the customer's record from before the rotation, and does not poll. */
  async function lagging(customer: Customer) {
    const database = holding(world.db)
    const replica = await replicaOn(world, database.db, { MAX_STALENESS: '4s' })
    expect((await replica.verify((await customer.issue()).json.access_token)).status).toBe(200)
    await world.advance(PUBLISHED_AHEAD_MS)
    await hear(replica)
    await database.hold(POLL).has
    expect((await rotate(here, customer)).status).toBe(200)
    expect(stateOf(replica, customer, 3)).toBe('next')
    return { database, replica }
  }

  const stateOf = (replica: Pick<Replica, 'keys'>, { id }: Customer, version: number) => {
    const key = replica.keys.get(id)!.keys.find(one => one.use === 'access' && one.version === version)
    return key?.pair && (key.isNext ? 'next' : 'signs')
  }

  test('accepts tokens of the new key after reloading the record once', async () => {
    const customer = await asymmetric(here, 'EdDSA')
    const { database, replica } = await lagging(customer)
    const fresh = (await customer.issue()).json.access_token
    const garbage = `${fresh.slice(0, -86)}${'A'.repeat(86)}`
    const before = database.asked(LOADER)
    expect((await replica.verify(garbage)).status).toBe(401)
    expect(database.asked(LOADER)).toBe(before)
    expect((await replica.verify(fresh)).status).toBe(200)
    expect(database.asked(LOADER)).toBe(before + 1)
    expect(stateOf(replica, customer, 3)).toBe('signs')
  })

  test('signs with the new key', async () => {
    const customer = await asymmetric(here, 'EdDSA')
    const { replica } = await lagging(customer)
    const issued = await replica.request('/issue', {
      method: 'POST',
      headers: { ...bearer(customer.apiKey), 'Content-Type': 'application/json' },
      body: '{}',
    })
    expect(headerOf(issued.json.access_token).kid).toContain('.a3.')
    expect(await verdicts(issued.json.access_token)).toEqual([200, 200])
  })
})

test.each(ALGORITHMS)(
  'a signature of the wrong length is refused without queueing, even under the next %s key',
  async alg => {
    const customer = await asymmetric(here, alg)
    const token = (await customer.issue()).json.access_token
    const [, claims] = token.split('.')
    const { keys } = await jwksOf(here, token)
    const forged = keys.flatMap(({ kid }) => {
      const header = Buffer.from(JSON.stringify({ ...headerOf(token), kid })).toString('base64url')
      return ['', 'AA', 'A'.repeat(84), 'A'.repeat(88), 'A'.repeat(340), 'A'.repeat(344)].map(
        signature => `${header}.${claims}.${signature}`,
      )
    })
    const answers = await Promise.all(
      Array(10)
        .fill(forged)
        .flat()
        .map(one => here.verify(one)),
    )
    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([401]))
  },
)

test('a batch of a hundred new tokens is answered', async () => {
  const customer = await asymmetric(here, 'EdDSA')
  const tokens = await Promise.all(
    Array.from({ length: 100 }, async () => (await customer.issue()).json.access_token),
  )
  const { json } = await there.postJson('/introspect/batch', { tokens }, bearer(customer.apiKey))
  expect(json.tokens.filter(({ active }: { active: boolean }) => active)).toHaveLength(100)
})

test('a replaced key keeps only its public half', async () => {
  const customer = await asymmetric(here, 'EdDSA')
  await world.advance(PUBLISHED_AHEAD_MS)
  await rotate(here, customer)
  const record = await here.keys.load(customer.id)
  const halves = record.keys.filter(({ pair }) => pair).map(({ version, pair }) => [version, pair!.canSign])
  expect(Object.fromEntries(halves)).toEqual({ 2: false, 3: true, 4: true })
})

test('the issuer has metadata at each address where clients look for it', async () => {
  const customer = await asymmetric(here, 'EdDSA')
  const { iss } = claimsOf((await customer.issue()).json.access_token)
  expect(iss).toMatch(new RegExp(`^${world.config.issuer}/customers/${customer.id}\\.[a-z2-7]{13}$`))
  const path = pathOf(iss)
  const addresses = [
    `/.well-known/oauth-authorization-server${path}`,
    `/.well-known/openid-configuration${path}`,
    `${path}/.well-known/oauth-authorization-server`,
    `${path}/.well-known/openid-configuration`,
  ]
  for (const address of addresses) {
    const { status, json } = await there.get(address)
    expect([status, json.issuer, json.jwks_uri]).toEqual([200, iss, `${iss}/jwks.json`])
  }
})

test('the path of an issuer comes before the customer, and after the well-known part', async () => {
  const customer = await asymmetric(here, 'EdDSA')
  const own = await world.replica({ ISSUER: 'https://api.example.com/auth' })
  const { iss } = claimsOf((await own.postJson('/issue', {}, bearer(customer.apiKey))).json.access_token)
  expect(iss).toMatch(/^https:\/\/api\.example\.com\/auth\/customers\/[a-z2-7.]{30}$/)
  for (const document of ['oauth-authorization-server', 'openid-configuration']) {
    expect((await own.get(`/.well-known/${document}${pathOf(iss)}`)).json.issuer).toBe(iss)
    const withoutPath = pathOf(iss).replace('/auth', '')
    expect((await own.get(`/.well-known/${document}${withoutPath}`)).status).toBe(404)
    // A proxy in front removes the issuer's path.
    expect((await own.get(`${withoutPath}/.well-known/${document}`)).json.issuer).toBe(iss)
  }
  await own.stop()
})

test('a JWKS may be cached, and a client that has it gets no body', async () => {
  const customer = await asymmetric(here, 'EdDSA')
  const { iss } = claimsOf((await customer.issue()).json.access_token)
  const path = pathOf(`${iss}/jwks.json`)
  const { headers } = await here.get(path)
  expect(headers.get('cache-control')).toBe('public, max-age=300')
  const again = await there.get(path, undefined, { 'If-None-Match': headers.get('etag')! })
  expect([again.status, again.text]).toEqual([304, ''])
  await rotate(here, customer, { use: 'access', now: true })
  const changed = await here.get(path, undefined, { 'If-None-Match': headers.get('etag')! })
  expect(changed.status).toBe(200)
})

test('a customer without keys, a missing one and a made-up one have no issuer; a disabled one has no keys', async () => {
  const hmac = await here.signUp()
  const customer = await asymmetric(here, 'EdDSA')
  const { iss } = claimsOf((await customer.issue()).json.access_token)
  const [name] = pathOf(iss).split('/').slice(-1)
  const otherFirst = name!.replace(/^./, first => (first === 'a' ? 'b' : 'a'))
  const made = [`${hmac.id}.aaaaaaaaaaaaa`, hmac.id, otherFirst, `${name}x`, 'x'.repeat(2000)]
  const database = holding(world.db)
  const replica = await replicaOn(world, database.db)
  for (const other of made) {
    expect((await replica.request(`/customers/${other}/jwks.json`)).status).toBe(404)
    const metadata = `/.well-known/openid-configuration/customers/${other}`
    expect((await replica.request(metadata)).status).toBe(404)
  }
  expect(database.asked(LOADER)).toBe(0)
  await here.request(`/admin/customers/${customer.id}/disable`, { method: 'POST', headers: bearer(ALICE) })
  const empty = await there.get(pathOf(`${iss}/jwks.json`))
  expect(empty.json).toEqual({ keys: [] })
  expect(empty.headers.get('cache-control')).toBe('no-cache')
})

test('the policy lists what offline verifiers do not see, and the audit records the keys', async () => {
  const customer = await asymmetric(here, 'EdDSA')
  const { json } = await here.get(`/admin/customers/${customer.id}`, ALICE)
  expect(json.policy).toEqual({ signing_alg: 'EdDSA' })
  expect(json.local_verification.jwks_uri).toBe(`${json.local_verification.issuer}/jwks.json`)
  expect(json.local_verification.not_seen).toContain('even if it was revoked')
  await here.setPolicy(customer.id, { signing_alg: 'ES256' })
  const { events } = (await here.get(`/admin/customers/${customer.id}/audit`, ALICE)).json
  const keys = events.filter(({ type }: { type: string }) => type.startsWith('secret.'))
  expect(keys.map(({ type, detail }: { type: string; detail: object }) => [type, detail])).toEqual([
    ['secret.published', { now: false, reason: 'policy', next: { version: 4, alg: 'ES256' } }],
    [
      'secret.rotated',
      {
        now: false,
        reason: 'policy',
        versions: { access: 2 },
        alg: 'EdDSA',
        next: { version: 3, alg: 'EdDSA' },
      },
    ],
  ])
})

test('the algorithm of a disabled customer can be changed', async () => {
  const customer = await here.signUp()
  const path = `/admin/customers/${customer.id}`
  const set = (state: 'disable' | 'enable') =>
    here.request(`${path}/${state}`, { method: 'POST', headers: bearer(ALICE) })
  await set('disable')
  await here.setPolicy(customer.id, { signing_alg: 'EdDSA' })
  await set('enable')
  expect(headerOf((await customer.issue()).json.access_token).alg).toBe('EdDSA')
})
