import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { rotateAgedKeys } from '../../server/keys/rotation.ts'
import { hear, holding, named, POLL, replicaOn } from '../support/holding.ts'
import {
  ALGORITHMS,
  accepts,
  asymmetric,
  headerOf,
  jwksOf,
  PUBLISHED_AHEAD_MS,
  rotate,
} from '../support/local.ts'
import { publishCustomer } from '../support/plant.ts'
import {
  ALICE,
  type Answer,
  bearer,
  type Customer,
  claimsOf,
  makeWorld,
  type Replica,
  type Tokens,
  type World,
} from '../support/world.ts'

/** Concurrent policy changes, rotations and maintenance, and changes that are interrupted. */

let world: World
let here: Replica
let there: Replica

beforeAll(async () => {
  world = await makeWorld()
  here = await world.replica()
  there = await world.replica()
})
afterAll(() => world.stop())

const SOURCE = named('findRotatable')
const putPolicy = (replica: Pick<Replica, 'request'>, { id }: Customer, policy: object) =>
  replica.request(`/admin/customers/${id}/policy`, {
    method: 'PUT',
    headers: { ...bearer(ALICE), 'Content-Type': 'application/json' },
    body: JSON.stringify(policy),
  })
async function maintain() {
  await here.clockWatch.observe()
  await rotateAgedKeys(here, 0)
}
const rows = ({ id }: Customer) =>
  world.admin.query<{ version: number; state: string; alg: string }>(
    `select version, state, alg from assay.signing_keys where customer_id = $1 and use = 'access' order by version`,
    [id],
  )
const signing = async (customer: Customer) =>
  (await rows(customer))
    .filter(({ state }) => state === 'current' || state === 'next')
    .map(({ state, alg }) => `${state} ${alg}`)
    .sort()

test('after two concurrent policy changes, the keys match the policy that is stored', async () => {
  const customer = await here.signUp()
  const database = holding(world.db)
  const slow = await replicaOn(world, database.db)
  const held = database.hold(SOURCE)
  const first = putPolicy(slow, customer, { signing_alg: 'EdDSA' })
  await held.has
  expect((await putPolicy(here, customer, {})).status).toBe(200)
  held.release()
  expect((await first).status).toBe(200)
  expect(await signing(customer)).toEqual(['current HS512'])
})

test('a rotation that began before the policy was changed does not bring back its algorithm', async () => {
  const customer = await asymmetric(here, 'EdDSA')
  await world.advance(PUBLISHED_AHEAD_MS)
  const database = holding(world.db)
  const slow = await replicaOn(world, database.db)
  const held = database.hold(SOURCE)
  const rotated = slow.request(`/admin/customers/${customer.id}/secrets/rotate`, {
    method: 'POST',
    headers: { ...bearer(ALICE), 'Content-Type': 'application/json' },
    body: '{"use":"access","now":true}',
  })
  await held.has
  expect((await putPolicy(here, customer, { signing_alg: 'ES256' })).status).toBe(200)
  held.release()
  expect((await rotated).status).toBe(200)
  expect((await signing(customer)).at(-1)).toBe('next ES256')
})

test.each([
  ['to EdDSA', {}, { signing_alg: 'EdDSA' }, ['current EdDSA', 'next EdDSA']],
  ['back to HS512', { signing_alg: 'EdDSA' }, {}, ['current HS512']],
])(
  'after a server was killed before it made the keys of a policy, maintenance brings them %s',
  async (_, before, policy, after) => {
    const customer = await here.signUp()
    await here.setPolicy(customer.id, before)
    await world.advance(PUBLISHED_AHEAD_MS + 1_000)
    const { signing_alg = null } = policy as { signing_alg?: string }
    await world.admin.query('update assay.customers set signing_alg = $2 where id = $1', [
      customer.id,
      signing_alg,
    ])
    await maintain()
    expect(await signing(customer)).toEqual(after)
    const token = (await customer.issue()).json.access_token
    expect((await there.verify(token)).status).toBe(200)
    const versions = await rows(customer)
    await maintain()
    expect(await rows(customer)).toEqual(versions)
  },
)

test('concurrent policy changes, rotations and maintenance leave one current key and the right next key', async () => {
  const algs = ['EdDSA', 'ES256', 'HS512'] as const
  /** 409: there are too many versions, or verifiers do not have the next key yet. */
  const answered = ({ status }: Answer) => expect([200, 409]).toContain(status)
  for (let round = 0; round < 6; round++) {
    const customer = await asymmetric(here, 'EdDSA')
    const tokens: string[] = []
    const issue = async () => {
      const { status, json } = await customer.issue()
      expect(status).toBe(200)
      tokens.push(json.access_token)
    }
    const acts = Array.from({ length: 12 }, async (_, i) => {
      const at = i % 2 ? here : there
      answered(await putPolicy(at, customer, { signing_alg: algs[(i + round) % 3] }))
      await issue()
      answered(await rotate(at, customer, { use: 'access', now: i % 4 === 0 }))
      if (i % 3 === 0) await maintain()
      await issue()
    })
    await Promise.all(acts)
    const keys = await rows(customer)
    expect(keys.filter(({ state }) => state === 'current')).toHaveLength(1)
    const [customerRow] = await world.admin.query<{ alg: string }>(
      'select signing_alg as alg from assay.customers where id = $1',
      [customer.id],
    )
    const { alg } = customerRow!
    const next = keys.filter(({ state }) => state === 'next').map(one => one.alg)
    expect(next).toEqual(alg === 'HS512' ? [] : [alg])
    expect(keys.map(({ version }) => version)).toEqual(keys.map((_, i) => i + 1))
    await issue()
    const last = tokens.at(-1)!
    expect((await there.verify(last)).status).toBe(200)
    if (headerOf(last).alg !== 'HS512') expect(await accepts(await jwksOf(there, last), last)).toBe(true)
  }
})

test('an emergency rotation reports until when offline verifiers accept old tokens, including keys from before HS512', async () => {
  const customer = await asymmetric(here, 'EdDSA')
  const { exp } = claimsOf((await customer.issue()).json.access_token)
  await here.setPolicy(customer.id, {})
  const { json } = await rotate(here, customer, { use: 'access', now: true })
  expect(Date.parse(json.local_verifiers.accept_until)).toBeGreaterThanOrEqual(exp * 1000)
  const again = await rotate(here, customer, { use: 'access', now: true })
  expect(again.json.local_verifiers).toBeUndefined()
})

test('and includes a token that was issued while the emergency rotation began', async () => {
  const customer = await asymmetric(here, 'EdDSA', { max_access_token_ttl: 3_600 })
  await customer.issue()
  await world.advance(PUBLISHED_AHEAD_MS)
  const database = holding(world.db)
  const slow = await replicaOn(world, database.db)
  const held = database.hold(SOURCE)
  const rotated = slow.request(`/admin/customers/${customer.id}/secrets/rotate`, {
    method: 'POST',
    headers: { ...bearer(ALICE), 'Content-Type': 'application/json' },
    body: '{"use":"access","now":true}',
  })
  await held.has
  await putPolicy(here, customer, { signing_alg: 'EdDSA', max_access_token_ttl: 86_400 })
  const { exp } = claimsOf((await customer.issue({ expires_in: 86_400 })).json.access_token)
  held.release()
  const { json } = await rotated
  expect(Date.parse(json.local_verifiers.accept_until)).toBeGreaterThanOrEqual(exp * 1000)
})

const SIGNING_ALGS = ['HS512', 'EdDSA', 'ES256', 'RS256'] as const
const SWITCHES = SIGNING_ALGS.flatMap(before =>
  SIGNING_ALGS.filter(after => after !== before).map(after => [before, after] as const),
)

test.each(SWITCHES)(
  'from %s to %s no token or session is refused, even on a replica that has read neither change',
  async (before, after) => {
    const customer = await here.signUp()
    await here.setPolicy(customer.id, { signing_alg: before })
    const database = holding(world.db)
    const lagging = await replicaOn(world, database.db, { MAX_STALENESS: '4s' })
    const refresh = async (at: Pick<Replica, 'request'>, refreshToken: string) => {
      const body = new URLSearchParams({ refresh_token: refreshToken })
      return (await at.request('/refresh', { method: 'POST', body })).json as Tokens
    }
    const atAll = async (token: string) =>
      (await Promise.all([here, there, lagging].map(one => one.verify(token)))).map(({ status }) => status)
    const isSlow = before !== 'HS512' && after !== 'HS512'
    let session: Tokens = await customer.session()
    if (isSlow) {
      await here.setPolicy(customer.id, { signing_alg: after })
      await world.advance(PUBLISHED_AHEAD_MS + 1_000)
      await hear(lagging)
    }
    session = await refresh(lagging, session.refresh_token)
    expect(await atAll(session.access_token)).toEqual([200, 200, 200])
    const old = session.access_token
    await hear(lagging)
    await database.hold(POLL).has
    if (isSlow) await maintain()
    else await here.setPolicy(customer.id, { signing_alg: after })
    const issued = await refresh(lagging, session.refresh_token)
    expect(headerOf(issued.access_token).alg).toBe(after)
    expect(await atAll(issued.access_token)).toEqual([200, 200, 200])
    const again = await refresh(there, issued.refresh_token)
    expect(await atAll(again.access_token)).toEqual([200, 200, 200])
    expect(await atAll(old)).toEqual([200, 200, 200])
  },
)

describe('after a failover that lost rotations', () => {
  /** Saves the customer's current keys. Returns a function that restores them, as on a promoted standby. */
  async function remember({ id }: Customer) {
    const table = `public.kept_${id}`
    await world.admin.query(
      `create table ${table} as select * from assay.signing_keys where customer_id = '${id}'`,
    )
    const [{ rotations } = { rotations: 0 }] = await world.admin.query<{ rotations: number }>(
      'select rotations from assay.customers where id = $1',
      [id],
    )
    return async () => {
      await world.admin.query('delete from assay.signing_keys where customer_id = $1', [id])
      await world.admin.query(`insert into assay.signing_keys select * from ${table}`)
      await world.admin.query(`drop table ${table}`)
      await world.admin.query('update assay.customers set rotations = $2 where id = $1', [id, rotations])
      await publishCustomer(world, id, [here, there])
    }
  }
  const emergency = async (customer: Customer) =>
    expect((await rotate(here, customer, { use: 'access', now: true })).status).toBe(200)
  const verdicts = async (token: string) => [
    (await here.verify(token)).status,
    (await there.verify(token)).status,
  ]

  test.each(ALGORITHMS)(
    'a version that is created twice accepts no signature of the lost %s key',
    async alg => {
      const customer = await asymmetric(here, alg)
      const lose = await remember(customer)
      for (let rounds = 0; rounds < 2; rounds++) await emergency(customer)
      const lost = (await customer.issue()).json.access_token
      expect(await verdicts(lost)).toEqual([200, 200])
      await lose()
      for (let rounds = 0; rounds < 2; rounds++) await emergency(customer)
      const fresh = (await customer.issue()).json.access_token
      expect(headerOf(fresh).kid).toBe(headerOf(lost).kid)
      expect(await verdicts(fresh)).toEqual([200, 200])
      expect(await verdicts(lost)).toEqual([401, 401])
      expect(await accepts(await jwksOf(there, fresh), lost)).toBe(false)
    },
  )

  test('a key that becomes the next one again signs nothing until it is rotated to again', async () => {
    const customer = await asymmetric(here, 'EdDSA')
    const old = (await customer.issue()).json.access_token
    const lose = await remember(customer)
    await emergency(customer)
    const lost = (await customer.issue()).json.access_token
    expect(await verdicts(lost)).toEqual([200, 200])
    await lose()
    expect(await verdicts(lost)).toEqual([401, 401])
    expect(await verdicts(old)).toEqual([200, 200])
    await emergency(customer)
    expect(await verdicts((await customer.issue()).json.access_token)).toEqual([200, 200])
    expect(await verdicts(old)).toEqual([401, 401])
  })
})
