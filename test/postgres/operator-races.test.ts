import type postgres from 'postgres'
import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest'
import { control } from '../support/database.ts'
import { ALICE, bearer, makeWorld, type Replica, type World } from '../support/world.ts'

/** Operator requests that run concurrently with other requests. */

let world: World
let assay: Replica
let sql: postgres.Sql

beforeAll(async () => {
  world = await makeWorld()
  assay = await world.replica()
  sql = control(world.url!)
})
afterAll(async () => {
  await sql.end()
  await world.stop()
})

test('a login that a password change waits for does not survive the change', async () => {
  const customer = await assay.signUp()
  const [locked, held] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
  onTestFinished(() => held.resolve())
  // Like insertLogin: locks the customer's row, then writes the session.
  const login = sql.begin(async begun => {
    await begun`select from assay.customers where id = ${customer.id} for share`
    await begun`
      insert into assay.sessions (customer_id, id, subject, scope, audience, access_ttl, customer_epoch, subject_epoch,
        issued_at, rotated_at, key_version, access_until, expires_at, ends_at)
      values (${customer.id}, 'aaaaaaaaaaaaaaaaaaaaaaaa', ${customer.id}, 'assay:account', '"x"', 300, 0, 0, assay.now(),
        assay.now(), 1, assay.now() + interval '5 minutes', assay.now() + interval '1 day', assay.now() + interval '1 day')`
    locked.resolve()
    await held.promise
  })
  await locked.promise
  const set = assay.request(`/admin/customers/${customer.id}/password`, {
    method: 'PUT',
    headers: { ...bearer(ALICE), 'Content-Type': 'application/json' },
    body: JSON.stringify({ password: 'a new horse battery' }),
  })
  await expect
    .poll(async () => (await world.admin.query('select from pg_locks where not granted')).length)
    .toBeGreaterThan(0)
  held.resolve()
  await login
  expect((await set).status).toBe(204)
  const live = await sql`select from assay.sessions where customer_id = ${customer.id} and revoked_at is null`
  expect(live).toHaveLength(0)
})

test('two customers that get the same email concurrently: one has it, the other request is refused', async () => {
  for (let round = 0; round < 10; round++) {
    const pair = await Promise.all([assay.signUp(), assay.signUp()])
    const email = `${crypto.randomUUID()}@example.com`
    const answers = await Promise.all(
      pair.map(({ id }) =>
        assay.request(`/admin/customers/${id}`, {
          method: 'PATCH',
          headers: { ...bearer(ALICE), 'Content-Type': 'application/json' },
          body: JSON.stringify({ email }),
        }),
      ),
    )
    expect(answers.map(({ status }) => status).sort()).toEqual([200, 409])
  }
})
