import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest'
import { holding, named, replicaOn } from '../support/holding.ts'
import { setPolicy, setQuiet } from '../support/issued-until.ts'
import { until } from '../support/process.ts'
import { bearer, type Customer, claimsOf, makeWorld, type Replica, type World } from '../support/world.ts'

/** A customer's bound on the exp of its tokens is raised before a token exceeds it. */

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

const count = async (rows: string, ...params: string[]) =>
  (await world.admin.query(`select from ${rows}`, params)).length

/** A customer with five-minute tokens, whose last one expired long ago. */
async function quiet(): Promise<Customer> {
  const customer = await assay.signUp()
  await setPolicy(assay, customer, { access_token_ttl: 5 * MINUTE, max_access_token_ttl: 5 * MINUTE })
  await setQuiet(world, customer)
  return customer
}

const issuedUntil = async ({ id }: Customer) => {
  const [row] = await world.admin.query<{ until: string }>(
    'select issued_until::text as until from assay.customers where id = $1',
    [id],
  )
  return row!.until
}

/** Runs `body` whenever the customer's `issued_until` is raised. */
async function onRaise({ id }: Customer, body: string) {
  await world.admin.query(
    `create function public.on_raise() returns trigger language plpgsql as $$ begin ${body} end $$`,
  )
  await world.admin.query(`create trigger on_raise before update of issued_until on assay.customers
    for each row when (new.id = '${id}') execute function public.on_raise()`)
  const remove = () => world.admin.query('drop function if exists public.on_raise cascade')
  onTestFinished(async () => void (await remove()))
  return remove
}

const RAISE = named('raiseIssuedUntil')

/** A replica that counts its queries. */
async function countingReplica() {
  const database = holding(world.db)
  const replica = await replicaOn(world, database.db, SETTINGS)
  const issue = ({ apiKey }: Customer, asked: object) =>
    replica.request('/issue', {
      method: 'POST',
      headers: { ...bearer(apiKey), 'Content-Type': 'application/json' },
      body: JSON.stringify({ subject: 'user-1', ...asked }),
    })
  return { database, issue }
}

test('a customer that issues tokens continuously changes its row at most once in ten minutes', async () => {
  const customer = await quiet()
  const { database, issue } = await countingReplica()
  const values = new Set<string>()
  for (let minute = 0; minute <= 60; minute++) {
    expect((await issue(customer, { refresh: minute % 3 === 0 })).status).toBe(200)
    values.add(await issuedUntil(customer))
    await advance(MINUTE)
  }
  expect(values.size).toBeGreaterThan(4)
  expect(values.size).toBeLessThan(8)
  expect(database.asked(RAISE)).toBeLessThan(8)
  // Only the first token waited for a raise.
  expect(database.asked(named('insertTokens', 'insertSessions'))).toBe(62)
})

test('a burst of first tokens raises the bound of their customer once', async () => {
  const customer = await quiet()
  const { database, issue } = await countingReplica()
  const answers = await Promise.all(
    Array.from({ length: 60 }, (_, i) => issue(customer, { refresh: i % 2 === 0 })),
  )
  expect(answers.map(({ status }) => status)).toEqual(answers.map(() => 200))
  expect(database.asked(RAISE)).toBe(1)
})

test('no token is issued until its expiry is covered by the customer’s stored bound', async () => {
  const customer = await quiet()
  const { email, password, apiKey } = customer
  const { refresh_token } = await customer.session()
  const startOnce = (key: string) =>
    assay.postJson(
      '/issue',
      { subject: 'user-1', refresh: true },
      { ...bearer(apiKey), 'Idempotency-Key': key },
    )
  expect((await startOnce('earlier')).status).toBe(200)
  await setQuiet(world, customer)
  const keep = await onRaise(customer, 'return old;')
  const events = () => count('assay.audit_events where customer_id = $1', customer.id)
  const before = await events()
  const answers = [
    await customer.issue({ subject: 'user-1' }),
    await customer.issue({ subject: 'user-1', refresh: true }),
    await startOnce('new'),
    await startOnce('earlier'),
    await assay.postJson('/api/auth/login', { email, password }),
    await assay.refresh(refresh_token),
  ]
  expect(answers.map(({ status }) => status)).toEqual([503, 503, 503, 503, 503, 503])
  expect(await events()).toBe(before)
  expect(await count(`assay.sessions where customer_id = $1 and subject = 'user-1'`, customer.id)).toBe(2)
  await keep()
  expect((await assay.refresh(refresh_token)).status).toBe(200)
})

test('the answer to a retry is also withheld if its token outlives a new one', async () => {
  const customer = await quiet()
  const once = { ...bearer(customer.apiKey), 'Idempotency-Key': 'once' }
  const ask = () => assay.postJson('/issue', { subject: 'user-1', refresh: true }, once)
  expect((await ask()).status).toBe(200)
  await setPolicy(assay, customer, { access_token_ttl: MINUTE, max_access_token_ttl: 5 * MINUTE })
  await world.admin.query(
    `update assay.customers set issued_until = assay.now() + interval '2 minutes' where id = $1`,
    [customer.id],
  )
  const repair = await onRaise(customer, 'return old;')
  expect((await ask()).status).toBe(503)
  await repair()
  expect((await ask()).status).toBe(200)
})

test('the answer to a retry is sent once its token is covered', async () => {
  const customer = await quiet()
  const once = { ...bearer(customer.apiKey), 'Idempotency-Key': 'once' }
  const ask = () => assay.postJson('/issue', { subject: 'user-1', refresh: true }, once)
  const first = await ask()
  const earlier = await issuedUntil(customer)
  await setQuiet(world, customer)
  const again = await ask()
  expect([first.status, again.status]).toEqual([200, 200])
  expect(claimsOf(again.json.access_token).sid).toBe(claimsOf(first.json.access_token).sid)
  expect((await issuedUntil(customer)) >= earlier).toBe(true)
})

test('an early raise that fails delays no token, and the next token tries again', async () => {
  const customer = await quiet()
  const { database, issue } = await countingReplica()
  await issue(customer, {})
  const first = await issuedUntil(customer)
  await advance(12 * MINUTE)
  // A failed statement leaves only the sequence number that it drew.
  const tries = async () =>
    (
      await world.admin.query<{ drawn: string }>(
        'select last_value + is_called::int as drawn from assay.epochs',
      )
    )[0]!.drawn
  const before = await tries()
  const repair = await onRaise(customer, `perform nextval('assay.epochs'); raise exception 'broken';`)
  expect((await issue(customer, {})).status).toBe(200)
  await until('the raise has failed', async () => (await tries()) !== before)
  expect(await issuedUntil(customer)).toBe(first)
  await repair()
  await until('it is raised', async () => {
    expect((await issue(customer, {})).status).toBe(200)
    return (await issuedUntil(customer)) > first
  })
  expect(database.asked(RAISE)).toBeGreaterThan(2)
})

test('a refused refresh token raises nothing', async () => {
  const customer = await quiet()
  const { refresh_token } = await customer.session()
  const first = await issuedUntil(customer)
  await advance(HOUR)
  await assay.postJson('/api/subjects/revoke', { subject: 'user-1' }, bearer(customer.apiKey))
  expect((await assay.refresh(refresh_token)).status).toBe(400)
  expect((await customer.issue({ subject: 'user-2', expires_in: HOUR })).status).toBe(400)
  expect(await issuedUntil(customer)).toBe(first)
})
