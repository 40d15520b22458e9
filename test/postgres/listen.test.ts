import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest'
import { listenForChanges } from '../../db/listen.ts'
import { direct } from '../support/database.ts'
import { openLink } from '../support/link.ts'
import { until } from '../support/process.ts'
import { trials } from '../support/trials.ts'
import { bearer, type Customer, makeWorld, type Replica, type World } from '../support/world.ts'

/** Notifications trigger an early poll. They may be lost, which only delays the next poll. */

/** Milliseconds; so long that no answer waits for a poll. */
const N = 60_000
/** The interval of the timed polls (ms). */
const INTERVAL = 500
/** An interval and a poll on a busy machine (ms). */
const SOON = 5 * INTERVAL
const KILLS = trials(10, 3)

let world: World
let here: Replica
let there: Replica
let customer: Customer

beforeAll(async () => {
  world = await makeWorld({ MAX_STALENESS: `${N}ms` })
  here = await world.replica()
  there = await world.replica()
  customer = await here.signUp()
})
afterAll(() => world.stop())

/** `there` receives notifications over `url`, which are counted, as main.ts connects a server to them. */
async function hearing(url: string) {
  let count = 0
  const hints = await listenForChanges(url, () => {
    count++
    there.changeFeed.wake()
  })
  onTestFinished(() => hints.close())
  expect(hints.heard).toBe(true)
  return { count: () => count }
}

/** A session's access token that both replicas have accepted. */
async function goodToken() {
  const { access_token: token } = await customer.session()
  for (const replica of [here, there]) expect((await replica.verify(token)).status).toBe(200)
  return token
}

async function revoke(token: string) {
  expect((await here.postForm('/revoke', { token }, bearer(customer.apiKey))).status).toBe(200)
  return performance.now()
}

/** How many milliseconds after the acknowledgement the first request was sent that `there` refused. */
async function refusedAfter(acknowledged: number, token: string): Promise<number> {
  let sent = acknowledged
  await until('there refuses it', async () => {
    sent = performance.now()
    return (await there.verify(token)).status === 401
  })
  return sent - acknowledged
}

const killListeners = () =>
  world.admin.query(
    `select pg_terminate_backend(pid) from pg_stat_activity
    where datname = current_database() and query ilike 'listen %'`,
  )

test('a replica that listens is notified of a revocation on another one, and polls', async () => {
  const hints = await hearing(direct(world.url!))
  const token = await goodToken()
  const before = hints.count()
  await revoke(token)
  await until('the hint is heard', () => hints.count() > before)
  await until('it has polled', async () => (await there.verify(token)).status === 401)
})

test('H26 changes published while the listener’s connection dies are found by the poll, and the next one is notified again (sqlx #447, postgres.js #391)', async () => {
  const hints = await hearing(direct(world.url!))
  for (let kill = 0; kill < KILLS; kill++) {
    const [token, next] = [await goodToken(), await goodToken()]
    const [ended, acknowledged] = await Promise.all([killListeners(), revoke(token)])
    expect(ended).toHaveLength(1)
    expect(await refusedAfter(acknowledged, token)).toBeLessThan(SOON)
    await expectHinted(hints, next)
  }
})

test('H26 while notifications are interrupted polls find every change, and notifications resume without help', async () => {
  const link = await openLink(direct(world.url!))
  onTestFinished(() => link.close())
  const hints = await hearing(link.url)
  const [token, next] = [await goodToken(), await goodToken()]
  link.refuse()
  const heard = hints.count()
  const polls = there.changeFeed.counts.polls
  const took = await refusedAfter(await revoke(token), token)
  expect(took).toBeLessThan(SOON)
  // It was a timed poll, without a notification.
  expect(hints.count()).toBe(heard)
  expect(there.changeFeed.counts.polls - polls).toBeLessThan(3 + took / INTERVAL)
  await link.fair()
  // A new listening connection triggers a poll too, because notifications may have been missed.
  await until('it listens again', () => hints.count() > heard)
  await expectHinted(hints, next)
})

/** Waits until publications are notified again. */
async function expectHinted(hints: { count(): number }, token: string) {
  const lost = hints.count()
  await until('a hint comes again', async () => {
    await world.admin.query(`select pg_notify('assay_changes', '')`)
    return hints.count() > lost
  })
  const before = hints.count()
  const acknowledged = await revoke(token)
  await until('the revocation is hinted', () => hints.count() > before)
  expect(await refusedAfter(acknowledged, token)).toBeLessThan(SOON)
}
