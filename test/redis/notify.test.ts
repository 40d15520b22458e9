import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest'
import { logIn } from '../support/plant.ts'
import { connected, type RedisWorld, redisWorld } from '../support/redis-key-cache.ts'
import { bearer } from '../support/world.ts'

let made: RedisWorld

beforeAll(async () => {
  made = await redisWorld()
})
afterAll(() => made.stop())

/** Counts the messages on the installation's channel. */
async function listening() {
  const listener = made.redis.duplicate()
  await listener.connect()
  onTestFinished(() => listener.destroy())
  const heard = { count: 0 }
  await listener.subscribe(made.here.redisNames.hints, () => void heard.count++)
  return heard
}

test('the replica that revokes notifies the others', async () => {
  const { here } = made
  const heard = await listening()
  const customer = await here.signUp()
  const acts = [
    async () => {
      const { access_token: token } = await customer.session()
      await here.postForm('/revoke', { token }, bearer(customer.apiKey))
    },
    async () => {
      const { refresh_token: token } = await customer.session()
      await here.postForm('/revoke', { token }, bearer(customer.apiKey))
    },
    () => here.postJson('/api/subjects/revoke', { subject: 'user-1' }, bearer(customer.accessToken)),
    () => here.postJson('/api/secrets/rotate', {}, bearer(customer.accessToken)),
  ]
  for (const act of acts) {
    const before = heard.count
    await act()
    await expect.poll(() => heard.count, { interval: 5 }).toBe(before + 1)
  }
})

test('a notified replica polls at once', async () => {
  const there = await made.world.replica()
  await connected(there)
  const { redis, here } = made
  const began = performance.now()
  for (let hint = 0; hint < 20; hint++) {
    const { polls } = there.changeFeed.counts
    await redis.publish(here.redisNames.hints, here.redisNames.mark())
    await expect.poll(() => there.changeFeed.counts.polls, { interval: 5 }).toBeGreaterThan(polls)
  }
  // Without notifications it polls every half second: 20 polls would take 10 s.
  expect(performance.now() - began).toBeLessThan(6_000)
})

test('no replica polls because a copy of the database has changed', async () => {
  const { redis, here } = made
  const { polls } = here.changeFeed.counts
  const began = performance.now()
  const mark = here.redisNames.mark('that of a copy')
  while (performance.now() - began < 500) await redis.publish(here.redisNames.hints, mark)
  const took = performance.now() - began
  // Without notifications it polls twice a second. Its own ones would make it poll every 20 ms.
  expect(here.changeFeed.counts.polls - polls).toBeLessThanOrEqual(2 + took / 250)
})

test('a burst of changes causes few notifications', async () => {
  const { here } = made
  const heard = await listening()
  const customer = await here.signUp()
  for (let session = 0; session < 10; session++) await logIn(here, customer)
  const changed = await here.postJson(
    '/api/auth/password',
    { password: customer.password, new_password: 'another long password' },
    bearer(customer.accessToken),
  )
  expect(changed.status).toBe(204)
  await expect.poll(() => heard.count, { interval: 5 }).toBeGreaterThan(0)
  await here.changeFeed.poll()
  expect(heard.count).toBeLessThanOrEqual(3)
})
