import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest'
import { listenForChanges } from '../../db/listen.ts'
import { direct } from '../support/database.ts'
import { openLink } from '../support/link.ts'
import { until } from '../support/process.ts'
import { trials } from '../support/trials.ts'
import { bearer, type Customer, makeWorld, type Replica, type World } from '../support/world.ts'

/** Hints make a poll early. They may be lost, and then the next one is only late. */

/** Milliseconds; so long that no answer waits for a poll. */
const N = 60_000
/** Between two polls that nobody asks for (ms). */
const INTERVAL = 500
/** An interval and a poll, on a busy machine (ms). */
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

/** `there` hears hints over `url`, counted, as main.ts lets a server hear them. */
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

/** A session's access token, which both know to be good. */
async function goodToken() {
  const { access_token: token } = await customer.session()
  for (const replica of [here, there]) expect((await replica.verify(token)).status).toBe(200)
  return token
}

async function revoke(token: string) {
  expect((await here.postForm('/revoke', { token }, bearer(customer.apiKey))).status).toBe(200)
  return performance.now()
}

/** Milliseconds after the acknowledgement at which the first question was sent that `there` answered no. */
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

test('a replica that listens is told of a revocation elsewhere, and polls', async () => {
  const hints = await hearing(direct(world.url!))
  const token = await goodToken()
  const before = hints.count()
  await revoke(token)
  await until('the hint is heard', () => hints.count() > before)
  await until('it has polled', async () => (await there.verify(token)).status === 401)
})

test('H26 what is published while the listener’s connection dies is found by the poll, and the next is hinted again (sqlx #447, postgres.js #391)', async () => {
  const hints = await hearing(direct(world.url!))
  for (let kill = 0; kill < KILLS; kill++) {
    const [token, next] = [await goodToken(), await goodToken()]
    const [ended, acknowledged] = await Promise.all([killListeners(), revoke(token)])
    expect(ended).toHaveLength(1)
    expect(await refusedAfter(acknowledged, token)).toBeLessThan(SOON)
    await expectHinted(hints, next)
  }
})

test('H26 hints that can’t come for a while are not missed, and come again by themselves', async () => {
  const link = await openLink(direct(world.url!))
  onTestFinished(() => link.close())
  const hints = await hearing(link.url)
  const [token, next] = [await goodToken(), await goodToken()]
  link.refuse()
  const heard = hints.count()
  const polls = there.changeFeed.counts.polls
  const took = await refusedAfter(await revoke(token), token)
  expect(took).toBeLessThan(SOON)
  // It was a poll of its own: nobody told it.
  expect(hints.count()).toBe(heard)
  expect(there.changeFeed.counts.polls - polls).toBeLessThan(3 + took / INTERVAL)
  await link.fair()
  // A connection that listens again is a hint too: there may have been some meanwhile.
  await until('it listens again', () => hints.count() > heard)
  await expectHinted(hints, next)
})

/** From some moment on every publication is hinted again. */
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
