import type postgres from 'postgres'
import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest'
import { control } from '../support/database.ts'
import { oneTimeToken } from '../support/plant.ts'
import {
  ADMIN_TOKEN,
  ALICE,
  bearer,
  type Customer,
  makeWorld,
  type Replica,
  type World,
} from '../support/world.ts'

/** One-time tokens that two statements want at the same moment. */

let world: World
let one: Replica
let two: Replica
let sql: postgres.Sql

beforeAll(async () => {
  world = await makeWorld()
  one = await world.replica()
  two = await world.replica()
  sql = control(world.url!)
})
afterAll(async () => {
  await sql.end()
  await world.stop()
})

const reset = (at: Replica, token: string, password: string) =>
  at.postJson('/api/auth/reset', { token, password })
const verifyEmail = (at: Replica, token: string) => at.postJson('/api/auth/verify-email', { token })
const newEmail = () => `${crypto.randomUUID()}@example.org`
const statusOfLogin = async ({ email }: Customer, password: string) =>
  (await one.postJson('/api/auth/login', { email, password })).status
const setPassword = (id: string, password: string) =>
  two.request(`/admin/customers/${id}/password`, {
    method: 'PUT',
    headers: { ...bearer(ALICE), 'Content-Type': 'application/json' },
    body: JSON.stringify({ password }),
  })

type Run = (begun: postgres.TransactionSql) => Promise<unknown>

/** Runs a transaction, and holds it open until `release`. */
async function hold(run: Run) {
  const [ran, held] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
  onTestFinished(() => held.resolve())
  const ended = sql.begin(async begun => {
    await run(begun)
    ran.resolve()
    await held.promise
  })
  await Promise.race([ran.promise, ended])
  return async () => {
    held.resolve()
    await ended
  }
}

const waiting = (statements: number) =>
  expect
    .poll(async () => (await world.admin.query('select from pg_locks where not granted')).length)
    .toBeGreaterThanOrEqual(statements)

test('of two servers that consume one token at the same moment exactly one does', async () => {
  const customer = await one.signUp()
  const token = await oneTimeToken(one, customer.id, 'password-reset')
  const release = await hold(begun => begun`select from assay.customers where id = ${customer.id} for update`)
  const racing = [
    reset(one, token, 'the password of one'),
    reset(two, token, 'the password of two'),
    reset(one, token, 'the password of three'),
  ]
  await waiting(3)
  await release()
  const answers = await Promise.all(racing)
  expect(answers.map(({ status }) => status).sort()).toEqual([204, 400, 400])
  const words = ['one', 'two', 'three']
  const won = answers.findIndex(({ status }) => status === 204)
  for (const [n, word] of words.entries())
    expect(await statusOfLogin(customer, `the password of ${word}`)).toBe(n === won ? 200 : 401)
  const events = await sql`
    select from assay.audit_events where customer_id = ${customer.id} and type = 'customer.password_reset'`
  expect(events).toHaveLength(1)
})

test('one token is consumed once, however often and wherever it is sent', async () => {
  for (let round = 0; round < 10; round++) {
    const customer = await one.signUp()
    const token = await oneTimeToken(one, customer.id, 'email-verification')
    const answers = await Promise.all([one, two, one, two].map(at => verifyEmail(at, token)))
    expect(answers.map(({ status }) => status).sort()).toEqual([204, 400, 400, 400])
  }
})

test('of tokens that are made at once only one is open', async () => {
  const customer = await one.signUp()
  const made = await Promise.all(
    [one, two, one, two, one, two].map(at => oneTimeToken(at, customer.id, 'password-reset')),
  )
  const answers = []
  for (const token of made) answers.push(await reset(one, token, 'a new horse battery'))
  expect(answers.map(({ status }) => status).sort()).toEqual([204, 400, 400, 400, 400, 400])
})

test('a token that is replaced while it is consumed is refused', async () => {
  const customer = await one.signUp()
  const token = await oneTimeToken(one, customer.id, 'password-reset')
  const release = await hold(async begun => {
    await begun`select from assay.customers where id = ${customer.id} for share`
    await begun`update assay.one_time_tokens set digest = '\\x00' where customer_id = ${customer.id}`
  })
  const refused = reset(one, token, 'a new horse battery')
  await waiting(1)
  await release()
  expect((await refused).json.error).toBe('invalid_grant')
  expect(await statusOfLogin(customer, customer.password)).toBe(200)
})

test('a reset that waits for a change of the address is refused, for its mailbox is the old one', async () => {
  const customer = await one.signUp()
  const token = await oneTimeToken(one, customer.id, 'password-reset')
  const email = newEmail()
  const release = await hold(
    begun => begun`update assay.customers set email = ${email} where id = ${customer.id}`,
  )
  const refused = reset(one, token, 'a new horse battery')
  await waiting(1)
  await release()
  expect((await refused).json.error).toBe('invalid_grant')
  expect(await statusOfLogin({ ...customer, email }, customer.password)).toBe(200)
})

test('a login that a reset waits for does not outlive it', async () => {
  const customer = await one.signUp()
  const token = await oneTimeToken(one, customer.id, 'password-reset')
  // insertLogin also locks the customer's row before it writes the session.
  const release = await hold(async begun => {
    await begun`select from assay.customers where id = ${customer.id} for share`
    await begun`
      insert into assay.sessions (customer_id, id, subject, scope, audience, access_ttl, customer_epoch, subject_epoch,
        issued_at, rotated_at, key_version, access_until, expires_at, ends_at)
      values (${customer.id}, 'aaaaaaaaaaaaaaaaaaaaaaaa', ${customer.id}, 'assay:account', '"x"', 300, 0, 0, assay.now(),
        assay.now(), 1, assay.now() + interval '5 minutes', assay.now() + interval '1 day', assay.now() + interval '1 day')`
  })
  const done = reset(one, token, 'a new horse battery')
  await waiting(1)
  await release()
  expect((await done).status).toBe(204)
  const live = await sql`select from assay.sessions where customer_id = ${customer.id} and revoked_at is null`
  expect(live).toHaveLength(0)
})

test('a change of the address that a new password waits for does not outlive it', async () => {
  const customer = await one.signUp()
  const release = await hold(async begun => {
    await begun`select from assay.customers where id = ${customer.id} for share`
    await begun`
      insert into assay.one_time_tokens (customer_id, purpose, digest, email, expires_at)
      values (${customer.id}, 'email_change', '\\x00', 'eve@example.org', assay.now() + interval '1 hour')`
  })
  const set = setPassword(customer.id, 'a new horse battery')
  await waiting(1)
  await release()
  expect((await set).status).toBe(204)
  expect(await sql`select from assay.one_time_tokens where customer_id = ${customer.id}`).toHaveLength(0)
})

test('a new password does not wait for a token that another statement has locked', async () => {
  const customer = await one.signUp()
  await oneTimeToken(one, customer.id, 'password-reset')
  const release = await hold(
    begun => begun`select from assay.one_time_tokens where customer_id = ${customer.id} for update`,
  )
  expect((await setPassword(customer.id, 'a new horse battery')).status).toBe(204)
  await release()
})

test('of two customers who confirm one address at once one gets it, and the other is told', async () => {
  for (let round = 0; round < 10; round++) {
    const [ann, bob] = [await one.signUp(), await one.signUp()]
    const email = newEmail()
    const tokens = await Promise.all(
      [ann, bob].map(({ id }) => oneTimeToken(one, id, 'email-change', { email })),
    )
    const answers = await Promise.all([verifyEmail(one, tokens[0]!), verifyEmail(two, tokens[1]!)])
    expect(answers.map(({ status }) => status).sort()).toEqual([204, 409])
  }
})

test('a token for a customer that is being erased is not made, and none is left', async () => {
  const customer = await one.signUp()
  const release = await hold(begun => begun`delete from assay.customers where id = ${customer.id}`)
  const refused = one.postJson(`/admin/customers/${customer.id}/password-reset`, {}, bearer(ADMIN_TOKEN))
  await waiting(1)
  await release()
  expect((await refused).status).toBe(404)
  expect(await sql`select from assay.one_time_tokens where customer_id = ${customer.id}`).toHaveLength(0)
})

test('resets, changes and new tokens of one customer in any order end in answers, and without a deadlock', async () => {
  const customer = await one.signUp()
  const before = await deadlocks()
  const acts = Array.from({ length: 40 }, async (_, n) => {
    const at = n % 2 ? one : two
    if (n % 4 === 0) return (await setPassword(customer.id, `a new horse battery ${n}`)).status
    if (n % 4 === 1)
      return oneTimeToken(at, customer.id, 'email-change', { email: newEmail() }).then(() => 201)
    const token = await oneTimeToken(at, customer.id, n % 4 === 2 ? 'password-reset' : 'email-verification')
    return (n % 4 === 2 ? await reset(at, token, `a new horse battery ${n}`) : await verifyEmail(at, token))
      .status
  })
  for (const status of await Promise.all(acts)) expect([201, 204, 400]).toContain(status)
  expect(await deadlocks()).toBe(before)
})

async function deadlocks(): Promise<number> {
  await sql`select pg_stat_force_next_flush()`
  const [row] = await sql<{ deadlocks: string }[]>`
    select deadlocks from pg_stat_database where datname = current_database()`
  return Number(row!.deadlocks)
}
