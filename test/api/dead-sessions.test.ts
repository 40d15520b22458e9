import { expect, onTestFinished, test } from 'vitest'
import { deleteDeadSessions } from '../../db/queries/maintenance.ts'
import { ADMIN_TOKEN, bearer, makeWorld, READER, type Replica, type World } from '../support/world.ts'

/** A session is deleted a day after it ended, however long it could have lived. */

const HOUR = 3_600_000
const DAY = 24 * HOUR
/** The lifetime of an access token, plus a margin. */
const TOKEN = 300_000 + 5_000
const SETTINGS = { REFRESH_TOKEN_TTL: '1000d', SESSION_MAX_TTL: '3000d', ACCESS_TOKEN_TTL: '5m' }

async function start(settings = SETTINGS): Promise<{ world: World; assay: Replica }> {
  const world = await makeWorld(settings)
  onTestFinished(() => world.stop())
  return { world, assay: await world.replica() }
}

const idsIn = async (world: World) =>
  (await world.admin.query<{ id: string }>('select id from assay.sessions order by id')).map(({ id }) => id)

const ENDS: Record<
  string,
  (assay: Replica, customer: Awaited<ReturnType<Replica['signUp']>>, id: string) => Promise<unknown>
> = {
  'that was ended': (assay, { apiKey }, id) =>
    assay.request(`/api/sessions/${id}`, { method: 'DELETE', headers: bearer(apiKey) }),
  'whose subject was revoked': (assay, { apiKey }) =>
    assay.postJson('/api/subjects/revoke', { subject: 'user-1' }, bearer(apiKey)),
  'whose customer was revoked': (assay, { id }) =>
    assay.postJson(`/admin/customers/${id}/revoke`, {}, bearer(ADMIN_TOKEN)),
  'that ended when everyone was revoked': assay =>
    assay.postJson('/admin/revoke', { everyone: true }, bearer(ADMIN_TOKEN)),
}

test.each(Object.entries(ENDS))('a session %s is deleted a day later, and not before', async (_, end) => {
  const { world, assay } = await start()
  const customer = await assay.signUp()
  const { session_id: id } = await customer.session()
  await end(assay, customer, id)
  await world.advance(DAY)
  await world.maintain()
  expect(await idsIn(world)).toContain(id)
  await world.advance(TOKEN)
  await world.maintain()
  expect(await idsIn(world)).not.toContain(id)
})

test('a session that was not refreshed in time is deleted a day later, years before its absolute expiry', async () => {
  const { world, assay } = await start({ ...SETTINGS, REFRESH_TOKEN_TTL: '1h' })
  const customer = await assay.signUp()
  const { session_id: id, refresh_token: token } = await customer.session()
  await world.advance(HOUR - 10_000)
  const { refresh_token: next } = (await assay.refresh(token)).json
  await world.advance(DAY + HOUR - 20_000)
  await world.maintain()
  expect(await idsIn(world)).toEqual([id])
  await world.advance(40_000)
  await world.maintain()
  expect(await idsIn(world)).toEqual([])
  for (const old of [token, next]) expect((await assay.refresh(old)).json.error).toBe('invalid_grant')
})

test('sessions that may still be refreshed are kept: idle ones, and those of a disabled customer', async () => {
  const { world, assay } = await start()
  const [idle, disabled] = [await assay.signUp(), await assay.signUp()]
  const [kept, waiting] = [await idle.session(), await disabled.session()]
  const set = (state: string) =>
    assay.postJson(`/admin/customers/${disabled.id}/${state}`, {}, bearer(ADMIN_TOKEN))
  expect((await set('disable')).status).toBe(200)
  const before = await idsIn(world)
  await world.advance(900 * DAY)
  await world.maintain()
  expect(await idsIn(world)).toEqual(before)
  expect((await set('enable')).status).toBe(200)
  for (const { refresh_token } of [kept, waiting])
    expect((await assay.refresh(refresh_token)).status).toBe(200)
})

test('tokens of a deleted session are refused and explained like those of an ended one', async () => {
  const { world, assay } = await start()
  const customer = await assay.signUp()
  const { session_id: id, refresh_token: used, access_token: access } = await customer.session()
  const { refresh_token: current } = (await assay.refresh(used)).json
  await assay.request(`/api/sessions/${id}`, { method: 'DELETE', headers: bearer(customer.apiKey) })
  await world.advance(DAY + TOKEN)
  await world.maintain()
  expect(await idsIn(world)).not.toContain(id)
  for (const token of [used, current]) {
    const { status, json } = await assay.refresh(token)
    expect([status, json.error]).toEqual([400, 'invalid_grant'])
    expect((await assay.introspect(token)).json).toEqual({ active: false })
    const explained = (await assay.postJson('/admin/explain', { token }, bearer(READER))).json
    expect(explained).toMatchObject({ active: false, reason: 'session_unknown' })
    expect((await assay.postForm('/revoke', { token }, bearer(customer.apiKey))).status).toBe(200)
  }
  expect((await assay.verify(access)).status).toBe(401)
  const { json } = await assay.get(`/admin/audit?customer=${customer.id}&type=session.revoked`, READER)
  expect(json.events).toMatchObject([{ session_id: id }])
})

test('when a session is deleted, none of its tokens counts as live any more', async () => {
  const { world, assay } = await start()
  const customer = await assay.signUp()
  const { session_id: id } = await customer.session()
  await assay.request(`/api/sessions/${id}`, { method: 'DELETE', headers: bearer(customer.apiKey) })
  await world.advance(DAY + TOKEN)
  await world.maintain()
  const { access_token } = (
    await assay.postJson('/api/auth/login', { email: customer.email, password: customer.password })
  ).json
  const dry = { use: 'access', now: true, dry_run: true }
  const { json } = await assay.postJson('/api/secrets/rotate', dry, bearer(access_token))
  expect(json.would_end.tokens).toBe(1)
})

/** The plan of the statement that deletes dead sessions, starting from the first one. */
async function planOfSweep({ admin }: World): Promise<string> {
  let explained: Promise<{ 'QUERY PLAN': string }[]> | undefined
  const query = async (statement: string) => {
    explained = admin.query(`explain ${statement.replaceAll(/\$\d+/g, `''`)}`)
    return []
  }
  await deleteDeadSessions({ query }, { customerId: '', id: '' })
  return (await explained!).map(row => row['QUERY PLAN']).join('\n')
}

test('with any number of sessions, the rounds reach all dead ones and keep live ones', async () => {
  const { world, assay } = await start()
  await world.admin.query(`insert into assay.sessions (customer_id, id, subject, scope, audience, access_ttl, customer_epoch,
      subject_epoch, issued_at, rotated_at, key_version, access_until, expires_at, ends_at, revoked_at)
    select chr(97 + n % 26) || 'aaaaaaaaaaaaaaa', lpad(n::text, 24, 'a'), 'user', '', '"x"', 300, 0, 0, t, t, 1, t, later, later,
      case when n % 10 > 0 then t end
    from generate_series(1, 25000) as n, assay.now() as t, lateral (select t + interval '9 years' as later) as later`)
  await world.admin.query(`insert into assay.customers (id, email, password_hash, sealed_data_key)
    select chr(97 + n) || 'aaaaaaaaaaaaaaa', n::text, '', '' from generate_series(0, 25) as n`)
  await world.advance(DAY + TOKEN)
  await world.admin.query('analyze assay.sessions')
  const plan = await planOfSweep(world)
  expect(plan).toMatch(/Index (Only )?Scan using sessions_customer_id_id_pk on sessions/)
  // Above a cost of 100,000, Postgres compiles a statement (jit_above_cost).
  expect(Number(/cost=[\d.]+\.\.([\d.]+)/.exec(plan)?.[1])).toBeLessThan(100_000)
  for (let rounds = 0; rounds < 2; rounds++) await assay.maintenance.run()
  const [left] = await world.admin.query<{ n: number; dead: number }>(
    'select count(*)::int as n, count(revoked_at)::int as dead from assay.sessions',
  )
  expect(left).toEqual({ n: 2_500, dead: 0 })
})
