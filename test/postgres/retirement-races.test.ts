import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest'
import { control } from '../support/database.ts'
import { logIn } from '../support/plant.ts'
import { until } from '../support/process.ts'
import { bearer, type Customer, makeWorld, type Replica, type World } from '../support/world.ts'

/** Cases that need a server with many connections: a statement that began before a rotation and ends after it. */

let world: World
let here: Replica

beforeAll(async () => {
  world = await makeWorld()
  here = await world.replica()
})
afterAll(() => world.stop())

/** Blocks acts with an event of this type at their event until released. */
async function hold(type: string) {
  const sql = control(world.url!)
  await sql.unsafe(`
    create or replace function public.hold() returns trigger language plpgsql as
      'begin perform pg_advisory_xact_lock(7); return new; end';
    create trigger hold before insert on assay.audit_events
      for each row when (new.type = '${type}') execute function public.hold();
    select pg_advisory_lock(7)`)
  const release = async () => {
    await sql`select pg_advisory_unlock_all()`
    await sql`drop trigger if exists hold on assay.audit_events`
    await sql.end()
  }
  let released: Promise<void> | undefined
  onTestFinished(() => (released ??= release()))
  const reached = () =>
    until('the act is held', async () => {
      const waiters = `select 1 from pg_locks where locktype = 'advisory' and not granted
        and database = (select oid from pg_database where datname = current_database())`
      return (await world.admin.query(waiters)).length > 0
    })
  return { reached, release: () => (released ??= release()) }
}

const rotate = (accessToken: string) =>
  here.postJson('/api/secrets/rotate', { use: 'refresh' }, bearer(accessToken))
const retire = (accessToken: string) =>
  here.postJson('/api/secrets/retire', { use: 'refresh', version: 1 }, bearer(accessToken))

/** Without publishing it, so that the account's access token stays valid while none of its sessions uses a secret. */
const endSilently = ({ id }: Customer) =>
  world.admin.query(
    `update assay.sessions set revoked_at = assay.now() where customer_id = $1 and subject = $1`,
    [id],
  )

test('a session that starts while its secret is replaced and retired is not lost', async () => {
  const customer = await here.signUp()
  await endSilently(customer)
  const held = await hold('token.issued')
  const starting = customer.issue({ refresh: true, subject: 'user-1' })
  await held.reached()
  expect((await rotate(customer.accessToken)).status).toBe(200)
  // No visible row uses it.
  const { json: kept } = await retire(customer.accessToken)
  expect(kept).toMatchObject({ error: 'conflict', live_sessions: 0 })
  await held.release()
  const { status, json } = await starting
  expect(status).toBe(200)
  expect((await here.refresh(json.refresh_token)).status).toBe(200)
})

test('a session that is refreshed at its last moment is not lost', async () => {
  const customer = await here.signUp()
  const { refresh_token, session_id } = await customer.session()
  await rotate(customer.accessToken)
  await endSilently(customer)
  await world.advance(86_400_000)
  const { access_token: account } = await logIn(here, customer)
  await world.admin.query(
    `update assay.sessions set expires_at = assay.now() + interval '10 s' where id = $1`,
    [session_id],
  )
  const held = await hold('session.refreshed')
  const refreshing = here.refresh(refresh_token)
  await held.reached()
  await world.advance(11_000)
  const { json: kept } = await retire(account)
  expect(kept).toMatchObject({ error: 'conflict', live_sessions: 1 })
  await held.release()
  // The answer is lost: the client retries with the token that it has.
  expect((await refreshing).status).toBe(200)
  expect((await here.refresh(refresh_token)).status).toBe(200)
})
