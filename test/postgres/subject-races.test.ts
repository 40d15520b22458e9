import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest'
import { control } from '../support/database.ts'
import { until } from '../support/process.ts'
import { bearer, type Customer, claimsOf, makeWorld, type Replica, type World } from '../support/world.ts'

/**
 * A subject is revoked while one of its tokens is being issued. A token that the revocation ends stays refused for its
 * whole life.
 */

let world: World
let assay: Replica

beforeAll(async () => {
  world = await makeWorld()
  assay = await world.replica()
})
afterAll(() => world.stop())

/** Runs `statement` in a transaction. Returns a function that ends it: by a rollback, unless `commit` is set. */
async function openTransaction(statement: string, { commit = false } = {}) {
  const sql = control(world.url!)
  const [opened, ended] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
  const transaction = sql
    .begin(async handle => {
      await handle.unsafe(statement)
      opened.resolve()
      await ended.promise
      if (!commit) throw new Error('undo it')
    })
    .catch(() => {})
  await opened.promise
  const end = async () => {
    ended.resolve()
    await transaction
    await sql.end()
  }
  onTestFinished(end)
  return end
}

/** Resolves once this many of our statements wait for a lock. */
const waiting = (many: number) =>
  until(`${many} statements wait for a lock`, async () => {
    const blocked = await world.admin.query(
      `select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`,
    )
    return blocked.length >= many
  })

const revoke = ({ apiKey }: Customer, subject = 'user-1') =>
  assay.postJson('/api/subjects/revoke', { subject }, bearer(apiKey))

const epochOf = (token: string) => Number(claimsOf(token).ep.split('.')[1])

/** An active customer whose last token expired hours ago, so that its next one raises issued_until. */
async function quiet(): Promise<Customer> {
  const customer = await assay.signUp()
  await world.admin.query(
    `update assay.customers set issued_until = assay.now() - interval '1 day' where id = $1`,
    [customer.id],
  )
  return customer
}

/** As far as the database knows, all its tokens expire within a second. */
const endTokens = ({ id }: Customer) =>
  world.admin.query(
    `update assay.customers set issued_until = assay.now() + interval '1 second' where id = $1`,
    [id],
  )

/** The NumericDate after which the revocation of the subject may be deleted. */
async function deadAfter({ id }: Customer): Promise<number> {
  const [row] = await world.admin.query<{ dead: number }>(
    `select extract(epoch from dead_after)::float8 as dead from assay.revocations
      where kind = 'subject' and customer_id = $1`,
    [id],
  )
  return row!.dead
}

/** Issues a token, and stops before its commit: its Idempotency-Key waits for that of another transaction. */
async function issueHalf(customer: Customer) {
  const undo = await openTransaction(
    `insert into assay.idempotency_keys (customer_id, key_digest, request_digest, session_id, expires_at)
      values ('${customer.id}', sha256('slow'), '', '', assay.now())`,
  )
  const issued = customer.issue({ subject: 'user-1', refresh: true }, { 'Idempotency-Key': 'slow' })
  await waiting(1)
  return { undo, issued }
}

test('a first token that waits for a revocation of its subject counts as issued after it', async () => {
  const customer = await quiet()
  await customer.session()
  await endTokens(customer)
  const undo = await openTransaction('select from assay.change_feed for update')
  const revoked = revoke(customer)
  await waiting(1)
  const issued = customer.issue({ subject: 'user-1' })
  await waiting(2)
  await undo()
  expect((await revoked).status).toBe(204)
  const { json, status } = await issued
  expect(status).toBe(200)
  const [{ epoch }] = (await world.admin.query(
    'select epoch from assay.subject_epochs where customer_id = $1',
    [customer.id],
  )) as [{ epoch: string }]
  expect(epochOf(json.access_token)).toBe(Number(epoch))
  expect((await assay.verify(json.access_token)).status).toBe(200)
})

test('a login that waits for a revocation of its customer as a subject counts as issued after it', async () => {
  const customer = await assay.signUp()
  await endTokens(customer)
  const undo = await openTransaction('select from assay.change_feed for update')
  const revoked = revoke(customer, customer.id)
  await waiting(1)
  const { email, password } = customer
  const logged = assay.postJson('/api/auth/login', { email, password })
  await waiting(2)
  await undo()
  expect((await revoked).status).toBe(204)
  const { json, status } = await logged
  expect(status).toBe(200)
  expect(epochOf(json.access_token)).toBeGreaterThan(0)
  expect((await assay.verify(json.access_token)).status).toBe(200)
})

test('a refresh that waits for a revocation of its subject is refused', async () => {
  const customer = await quiet()
  const { refresh_token } = await customer.session()
  await endTokens(customer)
  const undo = await openTransaction('select from assay.change_feed for update')
  const revoked = revoke(customer)
  await waiting(1)
  const refreshed = assay.refresh(refresh_token)
  await waiting(2)
  await undo()
  expect((await revoked).status).toBe(204)
  expect((await refreshed).json.error).toBe('invalid_grant')
})

test('a revocation that waits for a raise of its customer reads the raised value', async () => {
  const customer = await assay.signUp()
  await endTokens(customer)
  const end = await openTransaction(
    `update assay.customers set issued_until = assay.now() + interval '2 hours' where id = '${customer.id}'`,
    { commit: true },
  )
  const revoked = revoke(customer)
  await waiting(1)
  await end()
  expect((await revoked).status).toBe(204)
  expect(await deadAfter(customer)).toBeGreaterThan(Date.now() / 1_000 + 7_000)
})

test('a login that waits for its row uses the bound and the epoch of the same moment', async () => {
  const customer = await assay.signUp()
  await endTokens(customer)
  // A revocation of the customer as a subject, followed by a raise, both after the login's snapshot.
  const end = await openTransaction(
    `insert into assay.subject_epochs (customer_id, subject, epoch, check_after)
      values ('${customer.id}', '${customer.id}', nextval('assay.epochs'), assay.now());
    update assay.customers set issued_until = assay.now() + interval '2 hours' where id = '${customer.id}'`,
    { commit: true },
  )
  const { email, password } = customer
  const logged = assay.postJson('/api/auth/login', { email, password })
  await waiting(1)
  await end()
  const { json, status } = await logged
  expect(status).toBe(200)
  expect(epochOf(json.access_token)).toBeGreaterThan(0)
})

test.each([
  ['the first token of its customer', quiet],
  ['a token under way', () => assay.signUp()],
])('a revocation concurrent with %s is kept until that token expires', async (_, make) => {
  const customer = await make()
  const { undo, issued } = await issueHalf(customer)
  expect((await revoke(customer)).status).toBe(204)
  await undo()
  const { json } = await issued
  expect(epochOf(json.access_token)).toBe(0)
  expect(await deadAfter(customer)).toBeGreaterThan(claimsOf(json.access_token).exp)
  expect((await assay.verify(json.access_token)).status).toBe(401)
})

test('a burst of first tokens of one customer is issued at once and completely', async () => {
  const customer = await quiet()
  const answers = await Promise.all(
    Array.from({ length: 150 }, (_, i) => customer.issue({ subject: `user-${i}`, refresh: i % 2 === 0 })),
  )
  expect(answers.map(({ status }) => status)).toEqual(answers.map(() => 200))
})
