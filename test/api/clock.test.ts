import { expect, onTestFinished, test } from 'vitest'
import { deleteDead } from '../../db/queries/maintenance.ts'
import { ADMIN_TOKEN, bearer, makeWorld, READER, type Replica, type World } from '../support/world.ts'

/** The database's clock is set wrong and then corrected. No data that still matters is deleted. */

const MINUTE = 60_000
const HOUR = 60 * MINUTE
const DAY = 24 * HOUR

async function start(): Promise<{ world: World; one: Replica; two: Replica }> {
  const world = await makeWorld()
  onTestFinished(() => world.stop())
  const started = { world, one: await world.replica(), two: await world.replica() }
  await world.maintain()
  return started
}

const count = async (world: World, table: string) =>
  (await world.admin.query(`select from assay.${table}`)).length
const clockAt = async (replica: Replica) => (await replica.get('/admin/clock', READER)).json
const isHeld = async (replica: Replica) => 'held_until' in (await clockAt(replica))

/** Runs a round of maintenance on each replica every minute for this long, in steps of the given minutes. */
async function pass(world: World, milliseconds: number, step = MINUTE) {
  for (let passed = 0; passed < milliseconds; passed += step) {
    await world.advance(step)
    await world.maintain()
  }
}

test('revoked tokens stay revoked while the clock is two hours ahead for some rounds, and afterwards', async () => {
  const { world, one, two } = await start()
  const customer = await one.signUp()
  const [single, session, subject] = await Promise.all([
    customer.session(),
    customer.session({ subject: 'user-2' }),
    customer.session({ subject: 'user-3' }),
  ])
  await one.postForm('/revoke', { token: single.access_token }, bearer(customer.apiKey))
  await one.request(`/api/sessions/${session.session_id}`, {
    method: 'DELETE',
    headers: bearer(customer.apiKey),
  })
  await one.postJson('/api/subjects/revoke', { subject: 'user-3' }, bearer(customer.apiKey))
  const revoked = await count(world, 'revocations')
  await world.jump(2 * HOUR)
  await pass(world, 2 * MINUTE)
  expect(await count(world, 'revocations')).toBe(revoked)
  await world.jump(-2 * HOUR)
  await pass(world, MINUTE)
  for (const replica of [one, two, await world.replica()])
    for (const { access_token } of [single, session, subject])
      expect((await replica.verify(access_token)).status).toBe(401)
  expect((await two.verify(customer.accessToken)).status).toBe(200)
})

test('a jump of 500 days deletes, retires, rotates and detaches nothing', async () => {
  const { world, one } = await start()
  const customer = await one.signUp()
  await customer.issue({ refresh: true }, { 'Idempotency-Key': 'k' })
  await one.postJson('/api/secrets/rotate', {}, bearer(customer.accessToken))
  await one.postJson(`/admin/customers/${customer.id}/password-reset`, {}, bearer(ADMIN_TOKEN))
  const tables = ['sessions', 'idempotency_keys', 'one_time_tokens', 'signing_keys', 'replicas']
  const before = await Promise.all(tables.map(table => count(world, table)))
  const events = await count(world, 'audit_events')
  await world.jump(500 * DAY)
  await pass(world, 2 * MINUTE)
  expect(await Promise.all(tables.map(table => count(world, table)))).toEqual(before)
  await world.jump(-500 * DAY)
  await pass(world, MINUTE)
  const { states } = (
    await world.admin.query<{ states: string }>(
      `select string_agg(distinct state, ' ' order by state) as states from assay.signing_keys`,
    )
  )[0]!
  expect(states).toBe('current previous')
  // Newest first, so the one with the wrong time comes first.
  const { events: jumps } = (await one.get('/admin/audit?type=clock.jumped', READER)).json
  expect(jumps.map((event: { detail: object }) => event.detail)).toMatchObject([
    { seconds: 500 * 86_400, severity: 'critical' },
    { seconds: -500 * 86_400 },
  ])
  expect(await count(world, 'audit_events')).toBe(events + 2)
  expect((await one.refresh(customer.refreshToken)).status).toBe(200)
  // The hold is measured from the corrected clock.
  const { database_time, held_until } = await clockAt(one)
  expect(Date.parse(held_until) - Date.parse(database_time)).toBeLessThanOrEqual(DAY)
})

test('after 24 hours without another jump, deletion resumes', async () => {
  const { world, one, two } = await start()
  await one.signUp()
  await world.jump(100 * DAY)
  await world.maintain()
  await pass(world, 22 * HOUR, 11 * HOUR)
  expect(await count(world, 'sessions')).toBe(1)
  expect(await isHeld(two)).toBe(true)
  await pass(world, 3 * HOUR, 90 * MINUTE)
  expect(await isHeld(two)).toBe(false)
  expect(await count(world, 'sessions')).toBe(0)
  for (const replica of [one, two]) expect(replica.lines.join('')).toContain('trusted again')
})

test('an operator can end only the hold that they looked at', async () => {
  const { world, one, two } = await start()
  await one.signUp()
  await world.jump(100 * DAY)
  await world.maintain()
  const { held_until, jump_seconds, jumped_at } = await clockAt(one)
  expect(jump_seconds).toBe(100 * 86_400)
  expect(Date.parse(held_until) - Date.parse(jumped_at)).toBe(DAY)
  const confirm = (until: unknown, token = ADMIN_TOKEN) =>
    one.postJson('/admin/clock/confirm', { held_until: until }, bearer(token))
  expect((await confirm(held_until, READER)).status).toBe(403)
  for (const other of [null, 'now', jumped_at.slice(0, 10), 0])
    expect((await confirm(other)).status).toBe(400)
  expect((await confirm(jumped_at)).status).toBe(409)
  await world.jump(HOUR)
  await world.maintain()
  expect((await confirm(held_until)).status).toBe(409)
  expect(await count(world, 'sessions')).toBe(1)
  const { held_until: later } = await clockAt(one)
  expect((await confirm(later)).status).toBe(204)
  expect((await confirm(later)).status).toBe(409)
  await world.maintain()
  expect(await count(world, 'sessions')).toBe(0)
  const { events } = (await two.get('/admin/audit?type=clock.confirmed', READER)).json
  expect(events).toMatchObject([{ actor: 'operator:admin', detail: { seconds: 3600 } }])
})

test('the metric and the log of every replica show that deletion is held, and what to do', async () => {
  const { world, one, two } = await start()
  const held = async (replica: Replica) =>
    /^assay_clock_held (\d)$/m.exec((await replica.get('/metrics', ADMIN_TOKEN)).text)?.[1]
  expect([await held(one), await held(two)]).toEqual(['0', '0'])
  await world.jump(2 * HOUR)
  await pass(world, 3 * MINUTE)
  expect([await held(one), await held(two)]).toEqual(['1', '1'])
  for (const { lines } of [one, two]) {
    const said = lines.filter(line => line.includes('clock jumped'))
    expect(said).toHaveLength(1)
    expect(said[0]).toContain('assay clock confirm')
  }
})

test('a jump is detected once, by the first replica that checks, on one machine or on two', async () => {
  const { world, one, two } = await start()
  two.clock.restartOn('other')
  await world.maintain()
  for (const [first, second] of [
    [one, two],
    [two, one],
  ] as const) {
    await world.jump(3 * HOUR)
    await first.maintenance.run()
    const { held_until } = await clockAt(one)
    await one.postJson('/admin/clock/confirm', { held_until }, bearer(ADMIN_TOKEN))
    await second.maintenance.run()
    expect(await isHeld(one)).toBe(false)
  }
  expect((await one.get('/admin/audit?type=clock.jumped', READER)).json.events).toHaveLength(2)
})

test('replicas that check at the same moment detect a jump once', async () => {
  const { world, one, two } = await start()
  two.clock.restartOn('other')
  await world.maintain()
  for (let jumps = 1; jumps <= 3; jumps++) {
    await world.jump(3 * HOUR)
    await Promise.all([one, two, one, two].map(({ clockWatch }) => clockWatch.observe()))
    expect((await one.get('/admin/audit?type=clock.jumped', READER)).json.events).toHaveLength(jumps)
  }
})

test('a clock that jumps between a check and a deletion deletes nothing', async () => {
  const { world, one } = await start()
  const customer = await one.signUp()
  await one.postForm('/revoke', { token: customer.accessToken }, bearer(customer.apiKey))
  await world.jump(2 * HOUR)
  expect(await deleteDead(world.db, 'revocations')).toBe(0)
  await world.jump(-2 * HOUR)
  await world.advance(2 * HOUR)
  expect(await deleteDead(world.db, 'revocations')).toBe(0)
  await world.maintain()
  expect(await isHeld(one)).toBe(false)
  expect(await count(world, 'revocations')).toBe(0)
})

test('restarting every replica during the jump does not hide it, on the same machine or on another', async () => {
  for (const machine of ['world', 'other']) {
    const { world, one, two } = await start()
    await one.stop()
    await two.stop()
    await world.jump(2 * HOUR)
    const restarted = await world.replica()
    restarted.clock.restartOn(machine)
    await restarted.maintenance.run()
    expect(await isHeld(restarted), machine).toBe(true)
  }
})

test('days without the database or without replicas are not a jump if the clocks agree', async () => {
  for (const machine of ['world', 'other']) {
    const { world, one, two } = await start()
    await one.signUp()
    await one.stop()
    await two.stop()
    await world.advance(100 * DAY)
    const restarted = await world.replica()
    restarted.clock.restartOn(machine)
    restarted.clock.setWall(100 * DAY)
    await restarted.maintenance.run()
    expect(await isHeld(restarted), machine).toBe(false)
    expect(await count(world, 'sessions')).toBe(0)
  }
})

test('a wall clock that is hours off holds nothing, as long as some replica has checked in the last minutes', async () => {
  const { world, one, two } = await start()
  two.clock.restartOn('other')
  two.clock.setWall(-5 * HOUR)
  await pass(world, 3 * MINUTE)
  await one.stop()
  await pass(world, 3 * MINUTE)
  expect(await isHeld(two)).toBe(false)
})

test('a slowly slewed clock is not a jump; small steps that add up are', async () => {
  const { world, one } = await start()
  for (let steps = 0; steps < 10; steps++) {
    await world.jump(500e-6 * 6 * HOUR)
    await pass(world, 6 * HOUR, 6 * HOUR)
  }
  expect(await isHeld(one)).toBe(false)
  for (let steps = 0; steps < 2; steps++) {
    await world.jump(31_000)
    await pass(world, MINUTE)
  }
  expect(await isHeld(one)).toBe(true)
})

test('while deletion is held, no version can be retired on request', async () => {
  const { world, one } = await start()
  const customer = await one.signUp()
  await one.postJson('/api/secrets/rotate', { use: 'access' }, bearer(customer.accessToken))
  await world.jump(2 * HOUR)
  await world.maintain()
  const retire = (token: string) =>
    one.postJson('/api/secrets/retire', { use: 'access', version: 1 }, bearer(token))
  const { email, password } = customer
  const login = async () =>
    (await one.postJson('/api/auth/login', { email, password })).json.access_token as string
  const early = await retire(await login())
  expect([early.status, early.json.error]).toEqual([409, 'conflict'])
  expect(early.json.detail).toContain('clock has jumped')
  const { held_until } = await clockAt(one)
  await one.postJson('/admin/clock/confirm', { held_until }, bearer(ADMIN_TOKEN))
  expect((await retire(await login())).status).toBe(200)
})
