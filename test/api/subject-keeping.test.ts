import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest'
import { deleteUnneededEpochs } from '../../db/queries/maintenance.ts'
import { hear, replicaOn } from '../support/holding.ts'
import { setPolicy, setQuiet } from '../support/issued-until.ts'
import { SEED, trials } from '../support/trials.ts'
import {
  ALICE,
  bearer,
  type Customer,
  claimsOf,
  makeWorld,
  type Replica,
  type World,
} from '../support/world.ts'

/** Tests how long the revocation of a subject is kept, and its cost. */

const SETTINGS = { MAX_ACCESS_TOKEN_TTL: '24h' }
const MINUTE = 60
const HOUR = 60 * MINUTE

let world: World
let assay: Replica

beforeAll(async () => {
  world = await makeWorld(SETTINGS)
  assay = await world.replica()
})
afterAll(() => world.stop())

const advance = (seconds: number) => world.advance(seconds * 1_000)

const revoke = ({ apiKey }: Pick<Customer, 'apiKey'>, subject: string, ip?: string) =>
  assay.request('/api/subjects/revoke', {
    method: 'POST',
    headers: { 'Content-Type': 'application/json', ...bearer(apiKey) },
    body: JSON.stringify({ subject }),
    ...(ip !== undefined && { ip }),
  })

const revokeAsOperator = ({ id }: Customer, subject: string) =>
  assay.postJson(`/admin/customers/${id}/subjects/revoke`, { subject }, bearer(ALICE))

/** A customer whose last token expired more than an hour ago. `longest`: its longest token lifetime (s). */
async function quiet(longest?: number): Promise<Customer> {
  const customer = await assay.signUp()
  if (longest !== undefined) await allow(customer, longest)
  await setQuiet(world, customer)
  return customer
}

const allow = (customer: Customer, longest: number) =>
  setPolicy(assay, customer, {
    access_token_ttl: Math.min(longest, 5 * MINUTE),
    max_access_token_ttl: longest,
  })

const count = async (rows: string, ...params: string[]) =>
  (await world.admin.query(`select from ${rows}`, params)).length

const revocationsOf = ({ id }: Customer) =>
  count(`assay.revocations where kind = 'subject' and customer_id = $1`, id)
const epochsOf = ({ id }: Customer) => count('assay.subject_epochs where customer_id = $1', id)

/** Seconds until the revocation of a subject may be deleted. */
async function keptFor({ id }: Customer, subject: string): Promise<number> {
  const [row] = await world.admin.query<{ left: number }>(
    `select extract(epoch from dead_after - assay.now())::float8 as left from assay.revocations
      where kind = 'subject' and customer_id = $1 and key = $2`,
    [id, subject],
  )
  return row!.left
}

test('a subject that never had a token leaves only an audit event, if its customer has no live token', async () => {
  const customer = await quiet()
  for (let i = 0; i < 20; i++) expect((await revoke(customer, `user-${i}`)).status).toBe(204)
  expect([await revocationsOf(customer), await epochsOf(customer)]).toEqual([0, 0])
  expect(
    await count(`assay.audit_events where customer_id = $1 and type = 'subject.revoked'`, customer.id),
  ).toBe(20)
})

test('a session without a live token stays revoked, although nothing is published', async () => {
  const customer = await quiet(15 * MINUTE)
  const { refresh_token } = await customer.session()
  await advance(3 * HOUR)
  await assay.clockWatch.observe()
  expect((await revoke(customer, 'user-1')).status).toBe(204)
  expect([await revocationsOf(customer), await epochsOf(customer)]).toEqual([0, 1])
  expect((await assay.refresh(refresh_token)).json.error).toBe('invalid_grant')
})

test('setting a fast database clock back after a subject was revoked makes no token valid again', async () => {
  const customer = await quiet()
  const token = (await customer.issue({ subject: 'user-1', expires_in: 15 * MINUTE })).json.access_token
  await advance(60 * MINUTE)
  expect((await revoke(customer, 'user-1')).status).toBe(204)
  await advance(-60 * MINUTE)
  const restarted = await replicaOn(world, world.db, SETTINGS)
  for (const replica of [assay, restarted]) expect((await replica.verify(token)).status).toBe(401)
})

test('setting back a database clock that jumped hours ahead before a revocation makes no token valid again', async () => {
  const customer = await quiet(15 * MINUTE)
  const token = (await customer.issue({ subject: 'user-1', expires_in: 15 * MINUTE })).json.access_token
  await world.jump(5 * HOUR * 1000)
  expect((await revoke(customer, 'user-1')).status).toBe(204)
  await world.jump(-5 * HOUR * 1000)
  const restarted = await replicaOn(world, world.db, SETTINGS)
  for (const replica of [assay, restarted]) expect((await replica.verify(token)).status).toBe(401)
})

test('a revocation is kept for the longest token lifetime that the policy allows, and little longer', async () => {
  const customer = await quiet(8 * HOUR)
  await customer.issue({ subject: 'other', expires_in: 8 * HOUR })
  await revoke(customer, 'user-1')
  expect(await keptFor(customer, 'user-1')).toBeGreaterThan(8 * HOUR)
  expect(await keptFor(customer, 'user-1')).toBeLessThan(8 * HOUR + 17 * MINUTE)
})

test('lowering a lifetime shortens how long revocations are kept only after the old lifetime has passed', async () => {
  const customer = await quiet()
  await customer.issue({ subject: 'user-1', expires_in: 6 * HOUR })
  expect((await allow(customer, MINUTE)).status).toBe(200)
  await revoke(customer, 'user-1')
  expect(await keptFor(customer, 'user-1')).toBeGreaterThan(6 * HOUR)
  await advance(25 * HOUR)
  await customer.issue({ subject: 'user-1' })
  await revoke(customer, 'user-1')
  expect(await keptFor(customer, 'user-1')).toBeLessThan(20 * MINUTE)
})

test('a key that signed elsewhere keeps a revocation for a day and a minute', async () => {
  const customer = await quiet()
  await world.admin.query(
    `insert into assay.signing_keys (customer_id, use, version, state, alg, sealed_secret)
      select customer_id, use, 2, 'previous', 'HS256', sealed_secret from assay.signing_keys
      where customer_id = $1 and use = 'access'`,
    [customer.id],
  )
  await revoke(customer, 'user-1')
  expect(await keptFor(customer, 'user-1')).toBeGreaterThan(24 * HOUR + MINUTE)
})

test('revoking a subject again replaces the earlier revocation', async () => {
  const customer = await assay.signUp()
  for (let i = 0; i < 5; i++) await revoke(customer, 'user-1')
  expect(await revocationsOf(customer)).toBe(1)
  const token = (await customer.issue({ subject: 'user-1' })).json.access_token
  expect((await assay.verify(token)).status).toBe(200)
  await revoke(customer, 'user-1')
  expect((await assay.verify(token)).status).toBe(401)
})

test('revoking a customer again replaces the earlier change', async () => {
  const customer = await assay.signUp()
  for (let i = 0; i < 3; i++)
    await assay.postJson(`/admin/customers/${customer.id}/revoke`, undefined, bearer(ALICE))
  expect(await count(`assay.revocations where kind = 'customer' and customer_id = $1`, customer.id)).toBe(1)
})

test('a customer has at most 10,000 live revocations of subjects; an operator is not refused', async () => {
  const customer = await assay.signUp()
  await world.admin.query(
    `with numbers as (update assay.change_feed set seq = seq + 10000 returning seq)
    insert into assay.revocations (seq, kind, customer_id, key, epoch, dead_after)
    select seq - 10000 + i, 'subject', $1, 'made-up-' || i, 1, assay.now() + interval '10 minutes'
    from numbers, generate_series(1, 10000) as i`,
    [customer.id],
  )
  const refused = await revoke(customer, 'user-1')
  expect([refused.status, refused.headers.get('retry-after')]).toEqual([429, '60'])
  expect(await epochsOf(customer)).toBe(0)
  expect((await revoke(await assay.signUp(), 'user-1')).status).toBe(204)
  // Repeating an existing one does not add to the count.
  await world.admin.query(`delete from assay.revocations where customer_id = $1 and key = 'made-up-1'`, [
    customer.id,
  ])
  expect((await revoke(customer, 'user-1')).status).toBe(204)
  expect((await revoke(customer, 'user-1')).status).toBe(204)
  expect((await revoke(customer, 'user-2')).status).toBe(429)
  expect((await revokeAsOperator(customer, 'user-2')).status).toBe(204)
  await advance(11 * MINUTE)
  expect((await revoke(customer, 'user-3')).status).toBe(204)
})

test('the customers of one address together revoke 1,200 subjects a minute, and others are not delayed', async () => {
  const customers = [await quiet(), await quiet(), await quiet()] as const
  let refused = 0
  for (let i = 0; i < 402; i++)
    for (const { status } of await Promise.all(
      customers.map(one => revoke(one, `user-${i}`, '198.51.100.7')),
    ))
      if (status === 429) refused++
  expect(refused).toBe(6)
  expect((await revoke(customers[0], 'user-1', '198.51.100.8')).status).toBe(204)
})

test('the epoch of a subject is deleted once no session needs it, and its sessions stay revoked until then', async () => {
  const own = await makeWorld({ REFRESH_TOKEN_TTL: '4d', SESSION_MAX_TTL: '4d' })
  onTestFinished(() => own.stop())
  const replica = await own.replica()
  const customer = await replica.signUp()
  const { refresh_token } = await customer.session()
  for (const subject of ['user-1', 'nobody'])
    await replica.postJson('/api/subjects/revoke', { subject }, bearer(customer.apiKey))
  const subjects = async () =>
    (await own.admin.query<{ subject: string }>('select subject from assay.subject_epochs')).map(
      row => row.subject,
    )
  // This claims that it has a long-lived token. Otherwise maintenance deletes the revoked session before it checks the epoch.
  await own.admin.query(
    `update assay.sessions set access_until = assay.now() + interval '3 days' where subject = 'user-1'`,
  )
  const days = async (many: number) => {
    await own.advance(many * 24 * HOUR * 1_000)
    await own.maintain()
  }
  await days(1)
  expect((await subjects()).sort()).toEqual(['nobody', 'user-1'])
  await days(1.1)
  expect(await subjects()).toEqual(['user-1'])
  expect((await replica.refresh(refresh_token)).json.error).toBe('invalid_grant')
  await days(1)
  expect(await subjects()).toEqual(['user-1'])
  await own.advance(2 * 24 * HOUR * 1_000)
  await own.admin.query(`update assay.database_clock set held_until = assay.now() + interval '1 hour'`)
  await own.maintain()
  expect(await subjects()).toEqual(['user-1'])
  await own.admin.query('update assay.database_clock set held_until = null')
  await own.maintain()
  expect(await subjects()).toEqual([])
  expect(await deleteUnneededEpochs(own.db, {})).toEqual([{ due: 0, deleted: 0 }])
  const renewed = await customer.session()
  expect((await replica.verify(renewed.access_token)).status).toBe(200)
})

/** A generator of integers below `n` (mulberry32). */
function randomFrom(seed: number) {
  let state = seed
  return (n: number) => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) % n
  }
}

const LIFETIMES = [1, MINUTE, 5 * MINUTE, HOUR, 6 * HOUR, 24 * HOUR]
const STEPS = [1, 30, 4 * MINUTE, 11 * MINUTE, HOUR, 5 * HOUR]

interface Token {
  text: string
  subject: string
  exp: number
  isRevoked: boolean
}

/** Tokens of three subjects under changing policies, and what must hold for each. */
async function walk(seed: number, steps: number) {
  const random = randomFrom(seed)
  const one = <Value>(values: readonly Value[]) => values[random(values.length)]!
  const customer = await quiet()
  let tokens: Token[] = []
  const sessions = new Map<string, string>()
  const subjectFor = () => `user-${random(3)}`
  const keep = (text: string | undefined, subject: string) =>
    text !== undefined && tokens.push({ text, subject, exp: claimsOf(text).exp, isRevoked: false })
  const acts = [
    async () => {
      const most = one(LIFETIMES)
      await setPolicy(assay, customer, {
        access_token_ttl: Math.min(most, one(LIFETIMES)),
        max_access_token_ttl: most,
      })
    },
    async () => {
      const subject = subjectFor()
      const { json } = await customer.issue({ subject, expires_in: one(LIFETIMES) })
      keep(json.access_token, subject)
    },
    async () => {
      const subject = subjectFor()
      const { json } = await customer.issue({ subject, refresh: true })
      keep(json.access_token, subject)
      if (json.refresh_token) sessions.set(subject, json.refresh_token)
    },
    async () => {
      const [subject, refreshToken] = one([...sessions, ['none', '']])
      const { json } = await assay.refresh(refreshToken || 'none')
      keep(json.access_token, subject)
      if (json.refresh_token) sessions.set(subject, json.refresh_token)
    },
    async () => {
      const subject = subjectFor()
      expect((await revoke(customer, subject)).status).toBe(204)
      for (const token of tokens) if (token.subject === subject) token.isRevoked = true
    },
    () => advance(one(STEPS)),
    () => world.maintain(),
  ]
  for (let step = 0; step < steps; step++) {
    await one(acts)()
    if (random(3) > 0) continue
    await hear(assay)
    const replica = random(3) === 0 ? await replicaOn(world, world.db, SETTINGS) : assay
    const now = assay.changeFeed.now() / 1_000
    tokens = tokens.filter(({ exp }) => exp > now)
    for (const { text, isRevoked, exp } of tokens) {
      const { status } = await replica.verify(text)
      if (isRevoked) expect(status, `seed ${seed}, step ${step}`).toBe(401)
      else if (exp > now + 5) expect(status, `seed ${seed}, step ${step}`).toBe(200)
    }
  }
}

test('a token ended by a subject’s revocation is refused for its whole life, whatever lifetimes are set', {
  timeout: 600_000,
}, async () => {
  for (let trial = 0; trial < trials(200, 4); trial++) await walk(SEED + trial, 60)
})
