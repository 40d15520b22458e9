import { afterAll, beforeAll, expect, test } from 'vitest'
import { ACTS, FROM, stageFor } from '../support/acts.ts'
import { eventsAfter, everything, lastEvent } from '../support/everything.ts'
import { makeWorld, type Replica, type World } from '../support/world.ts'

/** Every act either writes its event or has no effect: one table of acts for both. */

let world: World
let assay: Replica

beforeAll(async () => {
  world = await makeWorld()
  assay = await world.replica()
})
afterAll(() => world.stop())

const NAMED = ACTS.map(act => [act.name, act] as const)

/** Events of one statement have no defined order. */
const byType = (one: { type: string }, two: { type: string }) => one.type.localeCompare(two.type)

test.each(NAMED)('%s writes its event, with the actor and the address', async (_, act) => {
  const stage = await stageFor(world, assay, act)
  const before = await lastEvent(world)
  const answer = await act.run(stage)
  expect(answer.status).toBe(act.status)
  const blank = { subject: null, session_id: null, token_id: null, detail: null }
  const expected = act.events(stage, answer).map(event => ({
    ...blank,
    ...event,
    ip: FROM.ip,
    user_agent: FROM.userAgent,
  }))
  const found = (await eventsAfter(world, before)).map(event => ({
    ...event,
    detail: event.detail === null ? null : JSON.parse(event.detail),
  }))
  expect(found.toSorted(byType)).toEqual(expected.toSorted(byType))
})

test('an event has the time of its act by the database’s clock', async () => {
  const customer = await assay.signUp()
  await world.advance(3_600_000)
  await customer.issue()
  const [row] = await world.admin.query<{ seconds: number }>(
    `select extract(epoch from assay.now() - at)::float8 as seconds from assay.audit_events
    where customer_id = $1 and type = 'token.issued'`,
    [customer.id],
  )
  expect(row!.seconds).toBeGreaterThanOrEqual(0)
  expect(row!.seconds).toBeLessThan(60)
})

test('a very long user agent is truncated', async () => {
  const customer = await assay.signUp()
  await customer.issue({}, { 'User-Agent': 'x'.repeat(5_000) })
  const [event] = (await assay.get('/api/audit?limit=1', customer.accessToken)).json.events
  expect(event.user_agent).toBe('x'.repeat(256))
})

/** Refuses every audit row until `run` has ended. */
async function withoutAudit<Result>(run: () => Promise<Result>): Promise<Result> {
  await world.admin.query(`create or replace function assay.refuse_audit() returns trigger language plpgsql
    as 'begin raise exception ''no audit''; end'`)
  await world.admin.query(
    'create trigger refuse before insert on assay.audit_events for each row execute function assay.refuse_audit()',
  )
  try {
    return await run()
  } finally {
    await world.admin.query('drop trigger refuse on assay.audit_events')
  }
}

test.each(NAMED)('H53 %s has no effect if its event cannot be written', async (_, act) => {
  const stage = await stageFor(world, assay, act)
  const [before, last] = [await everything(world), await lastEvent(world)]
  const refused = await withoutAudit(() => act.run(stage))
  expect(refused.status).toBe(500)
  expect(refused.json.error).toBe('server_error')
  expect(refused.text).not.toMatch(/eyJ|assay_ak_|no audit|audit_events/)
  expect(await everything(world)).toEqual(before)
  expect(await eventsAfter(world, last)).toEqual([])
  // This replica does not remember the undone act either.
  const token = act.ends?.(stage)
  if (token) expect((await assay.verify(token)).status).toBe(200)

  expect((await act.run(stage)).status).toBe(act.status)
  if (token) expect((await assay.verify(token)).status).toBe(401)
})
