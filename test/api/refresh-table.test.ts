import { afterAll, beforeAll, expect, test } from 'vitest'
import {
  type Cell,
  COLUMNS,
  type Column,
  cells,
  type Outcome,
  outcomeOf,
  type Policy,
  SAID,
  type Scene,
  sceneOn,
} from '../support/refresh-cells.ts'
import {
  type AuditedEvent,
  auditOf,
  type StoppedClock,
  stopClock,
  storedSession,
} from '../support/sessions.ts'
import {
  type Answer,
  bearer,
  type Customer,
  claimsOf,
  makeWorld,
  type Replica,
  type World,
} from '../support/world.ts'

const HOUR = 3_600_000
const IDLE = 30 * 24 * HOUR

let world: World
let clock: StoppedClock
let other: Replica
let customer: Customer
const replicas = {} as Record<Policy, Replica>

beforeAll(async () => {
  world = await makeWorld({ MAX_ACCESS_TOKEN_TTL: '24h' })
  for (const policy of new Set(COLUMNS.map(({ policy }) => policy)))
    replicas[policy] = await world.replica({ REFRESH_POLICY: policy })
  other = await world.replica()
  customer = await other.signUp()
  clock = await stopClock(world, all())
})
afterAll(() => world.stop())

const all = () => [other, ...Object.values(replicas)]

const onStage = (replica: Replica, owner = customer) =>
  sceneOn({ world, clock, replica, replicas: all(), customer: owner })

for (const column of COLUMNS)
  for (const cell of cells) {
    const outcome = outcomeOf(cell, column)
    const name = column.authenticated ? `${column.policy}, with an API key` : column.policy
    test(`${name}: ${cell.presented} ${SAID[outcome]}`, () => play(column, cell, outcome))
  }

/** Plays one cell: arranges the state, presents the token, and checks every permitted and forbidden effect. */
async function play({ policy, authenticated }: Column, cell: Cell, outcome: Outcome) {
  const replica = replicas[policy]
  const scene = await onStage(replica, cell.alone && (await replica.signUp()))
  await cell.arrange(scene)
  const presented = scene.given.at(-1 - cell.back)!.refresh_token
  const before = { ...(await storedSession(world, scene.id)), audit: await auditOf(world, scene.id) }
  const refresh = (token: string) =>
    replica.refresh(token, authenticated ? bearer(scene.customer.apiKey) : {})
  const answer = await refresh(presented)
  const after = await storedSession(world, scene.id)
  const audit = (await auditOf(world, scene.id)).slice(before.audit.length)

  const { gen } = claimsOf(presented)
  expect(after.gen).toBe(
    { rotate: before.gen + 1, adopt: gen + 1, keep: gen }[outcome as string] ?? before.gen,
  )
  expect(audit).toEqual(audited(outcome, { presented: gen, current: before.gen }))
  if (outcome !== 'reuse') expect(after.revoked).toBe(before.revoked)
  if (outcome === 'ended') {
    expect(errorOf(answer)).toBe(cell.disabled ? '403 customer_disabled' : '400 invalid_grant')
    if (cell.accessEnded) await expectDead(scene)
  } else if (outcome === 'reuse') await expectEnded(scene, answer)
  else await expectGranted(scene, answer, outcome)
  if (outcome === 'renew' || outcome === 'keep') {
    expect(after.expiresAt).toBe(clock.now() + IDLE)
    await clock.advance(HOUR)
    expect((await refresh(presented)).status).toBe(200)
  }
  if (answer.status === 200) expect((await refresh(answer.json.refresh_token)).status).toBe(200)
}

const errorOf = ({ status, json }: Answer) => `${status} ${json.error}`

function audited(outcome: Outcome, at: { presented: number; current: number }): AuditedEvent[] {
  const event = (type: string, severity: string, late = false) => [
    { type, detail: { ...at, late, severity } },
  ]
  return {
    rotate: event('session.refreshed', 'info'),
    renew: event('session.refreshed', 'info'),
    replay: event('session.replayed', 'info'),
    late: event('session.replayed', 'info', true),
    adopt: event('session.adopted', 'critical'),
    keep: event('session.adopted', 'critical'),
    reuse: event('session.reuse_detected', 'warning'),
    ended: [],
  }[outcome]
}

async function expectGranted(scene: Scene, { status, json }: Answer, outcome: Outcome) {
  expect(status).toBe(200)
  expect(json.session_id).toBe(scene.id)
  const newest = scene.given.at(-1)!
  if (outcome === 'renew' || outcome === 'replay' || outcome === 'late')
    expect(json.refresh_token).toBe(newest.refresh_token)
  else if (outcome !== 'keep')
    expect(scene.given.map(each => each.refresh_token)).not.toContain(json.refresh_token)
  expect(scene.given.map(each => each.access_token)).not.toContain(json.access_token)
  const live = scene.given.map(each => each.access_token).filter(isUnexpired)
  for (const replica of [scene.replica, other])
    for (const token of [json.access_token, ...live]) expect((await replica.verify(token)).status).toBe(200)
}

const isUnexpired = (token: string) => claimsOf(token).exp * 1000 > clock.now()

/** Expects that the session has ended for everyone, on every replica, including the holder of the newest token. */
async function expectEnded(scene: Scene, { status, json }: Answer) {
  expect([status, json.error]).toEqual([400, 'invalid_grant'])
  expect((await storedSession(world, scene.id)).revoked).toBe(true)
  for (const { access_token } of scene.given)
    expect((await scene.replica.verify(access_token)).status).toBe(401)
  for (const replica of [other, scene.replica]) {
    const refused = await replica.refresh(scene.given.at(-1)!.refresh_token)
    expect([refused.status, refused.json.error]).toEqual([400, 'invalid_grant'])
  }
  await expectDead(scene)
}

async function expectDead(scene: Scene) {
  await clock.advance(0)
  for (const replica of [scene.replica, other])
    for (const { access_token } of scene.given) expect((await replica.verify(access_token)).status).toBe(401)
}

test('a session that ended by reuse has also ended for a replica that starts later', async () => {
  const scene = await onStage(replicas.until_confirmed)
  await scene.refresh(3)
  expect((await scene.replica.refresh(scene.given[0]!.refresh_token)).status).toBe(400)
  const late = await world.replica()
  for (const { access_token, refresh_token } of scene.given) {
    expect((await late.verify(access_token)).status).toBe(401)
    expect((await late.refresh(refresh_token)).status).toBe(400)
  }
})

for (const retried of [false, true])
  test(`the end of a session is kept for as long as the access token of its last ${retried ? 'retry' : 'refresh'}`, async () => {
    const scene = await onStage(other)
    await scene.refresh()
    await scene.wait(12 * HOUR)
    const { json } = await other.refresh(scene.given.at(retried ? -2 : -1)!.refresh_token)
    await other.postForm('/revoke', { token: json.refresh_token })
    await scene.wait(20 * HOUR)
    const late = await world.replica()
    for (const replica of [other, late]) expect((await replica.verify(json.access_token)).status).toBe(401)
  })

test('a disabled customer that is enabled again has its sessions back', async () => {
  const scene = await onStage(other, await other.signUp())
  await scene.refresh()
  const { access_token, refresh_token } = scene.given.at(-1)!
  await scene.changeCustomer(`state = 'disabled'`)
  expect(errorOf(await other.refresh(refresh_token))).toBe('403 customer_disabled')
  expect((await other.verify(access_token)).status).toBe(401)
  await scene.changeCustomer(`state = 'active'`)
  expect((await other.verify(access_token)).status).toBe(200)
  const again = await other.refresh(refresh_token)
  expect(again.status).toBe(200)
  expect((await storedSession(world, scene.id)).gen).toBe(3)
})

test('a session expires when its idle time ends, and not a second earlier', async () => {
  const scenes = [await onStage(other), await onStage(other)]
  const [early, late] = scenes.map(({ given }) => given[0]!.refresh_token) as [string, string]
  await clock.advance(IDLE - 1_000)
  expect((await other.refresh(early)).status).toBe(200)
  await clock.advance(1_000)
  expect((await other.refresh(late)).json.error).toBe('invalid_grant')
})

test('a refresh at the last moment whose answer was lost can be retried after the idle time', async () => {
  const scene = await onStage(other)
  const { refresh_token } = scene.given[0]!
  await clock.advance(IDLE - 1_000)
  const lost = await other.refresh(refresh_token)
  await clock.advance(HOUR)
  expect((await other.refresh(refresh_token)).json.refresh_token).toBe(lost.json.refresh_token)
})

test('a session ends at its absolute expiry, however often it is refreshed', async () => {
  const scene = await onStage(other)
  const { endsAt } = await storedSession(world, scene.id)
  for (let month = 0; month < 3; month++) {
    await clock.advance(29 * 86_400_000)
    await scene.refresh()
  }
  const { access_token, refresh_token, expires_in } = scene.given.at(-1)!
  expect(claimsOf(refresh_token).exp * 1000).toBe(endsAt)
  expect(expires_in).toBe(86_400)
  await clock.advance(endsAt - clock.now() - 60_000)
  const last = await other.refresh(refresh_token)
  expect(last.json.expires_in).toBe(60)
  expect(claimsOf(last.json.access_token).exp * 1000).toBe(endsAt)
  await clock.advance(60_000)
  expect((await other.refresh(last.json.refresh_token)).json.error).toBe('invalid_grant')
  for (const token of [access_token, last.json.access_token])
    expect((await other.verify(token)).status).toBe(401)
})
