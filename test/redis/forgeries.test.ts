import { afterAll, beforeAll, beforeEach, expect, onTestFinished, test } from 'vitest'
import { installationMac } from '../../server/crypto/mac.ts'
import { hear, LOADER, POLL } from '../support/holding.ts'
import { coldReplica, outcomes, type RedisWorld, redisWorld, shelved } from '../support/redis-key-cache.ts'
import { ADMIN_TOKEN, type World } from '../support/world.ts'

let made: RedisWorld
let world: World
let cold: Awaited<ReturnType<typeof coldReplica>>

beforeAll(async () => {
  made = await redisWorld()
  world = made.world
})
beforeEach(async () => {
  cold = await coldReplica(world)
})
afterAll(() => made.stop())

/** The outcome when the cold replica reads this entry. The token is valid and must be accepted whatever Redis returns. */
async function lookAt(customerId: string, token: string, entry: string | Buffer) {
  cold.replica.keys.forget.all()
  await made.put(customerId, entry)
  const [before, loaded] = [await outcomes(cold.replica, ADMIN_TOKEN), cold.loads()]
  expect((await cold.replica.verify(token)).status).toBe(200)
  const after = await outcomes(cold.replica, ADMIN_TOKEN)
  const [outcome] = Object.keys(after).filter(name => after[name] !== before[name])
  expect(cold.loads() - loaded).toBe(outcome === 'used' ? 0 : 1)
  return outcome
}

test('an entry with any bit flipped is not used', async () => {
  const { customer, token, entry } = await shelved(made)
  expect(await lookAt(customer.id, token, entry)).toBe('used')
  // Every byte of the MAC, and one in fifty of the rest.
  const places = [...entry].flatMap((_, i) => (i < 56 || i % 50 === 0 || i === entry.length - 1 ? [i] : []))
  for (const place of places) {
    const bytes = Buffer.from(entry)
    bytes[place]! ^= 1 << (place % 8)
    expect(`${place}: ${await lookAt(customer.id, token, bytes)}`).toBe(`${place}: forged`)
  }
})

test('a truncated, longer, empty or malformed entry is not used', async () => {
  const { customer, token, entry } = await shelved(made)
  const cut = [1, 51, 52, 53, 200, entry.length - 1].map(length => entry.slice(0, length))
  const longer = [`${entry} `, ` ${entry}`, entry + entry, entry.padEnd(70_000), 'x'.repeat(5_000_000)]
  const others = ['null', '{}', '[]', '0', '\0', `${'a'.repeat(52)}{}`, 'é'.repeat(52), entry.toUpperCase()]
  for (const text of [...cut, ...longer, ...others])
    expect(await lookAt(customer.id, token, text)).toBe('forged')
  expect(await lookAt(customer.id, token, '')).toBe('missing')
  expect(await lookAt(customer.id, token, Buffer.from(Array.from({ length: 300 }, (_, i) => i)))).toBe(
    'forged',
  )
})

test('a value that is not a string is a miss, and is overwritten', async () => {
  const { customer, token } = await shelved(made)
  cold.replica.keys.forget.all()
  await made.remove(customer.id)
  await made.redis.lPush(made.nameOf(customer.id), ['a', 'b'])
  expect((await cold.replica.verify(token)).status).toBe(200)
  expect(await outcomes(cold.replica, ADMIN_TOKEN)).toMatchObject({ failed: 1 })
  await expect.poll(() => made.redis.type(made.nameOf(customer.id))).toBe('string')
})

test('the entry of another customer, or of another installation, is not used', async () => {
  const [one, other] = [await shelved(made), await shelved(made)]
  expect(await lookAt(one.customer.id, one.token, other.entry)).toBe('forged')
  const elsewhere = await redisWorld()
  const foreign = await shelved(elsewhere)
  expect(await lookAt(one.customer.id, one.token, foreign.entry)).toBe('forged')
  // The very same customer, as when two installations began as copies of one.
  const body = one.entry.slice(52)
  const { installationKey } = elsewhere.world.keyRing
  const theirs = installationMac(installationKey, 'cached record', `${one.customer.id} ${body}`, 32) + body
  expect(await lookAt(one.customer.id, one.token, theirs)).toBe('forged')
  await elsewhere.stop()
})

test('an entry is used for an hour by the database’s clock, and no longer', async () => {
  const { customer, entry } = await shelved(made)
  await world.advance(3_595_000)
  await hear(cold.replica)
  const { access_token: token } = await customer.session()
  expect(await lookAt(customer.id, token, entry)).toBe('used')
  await world.advance(6_000)
  await hear(cold.replica)
  const { access_token: later } = await customer.session()
  expect(await lookAt(customer.id, later, entry)).toBe('outdated')
})

test('Redis itself keeps an entry for an hour at most', async () => {
  const { customer } = await shelved(made)
  const life = await made.redis.pTTL(made.nameOf(customer.id))
  expect(life).toBeGreaterThan(0)
  expect(life).toBeLessThanOrEqual(3_600_000)
})

test('an entry from the future is not used', async () => {
  await world.advance(300_000)
  const { customer, entry } = await shelved(made)
  await world.advance(-200_000)
  await hear(cold.replica)
  const { access_token: token } = await customer.session()
  expect(await lookAt(customer.id, token, entry)).toBe('outdated')
})

test('an entry from another timeline is not used, on either side', async () => {
  const { customer, token, entry } = await shelved(made)
  const other = await coldReplica(world)
  other.database.otherTimeline(new RegExp(`${LOADER.source}|${POLL.source}`))
  await hear(other.replica)
  onTestFinished(() => other.database.otherTimeline(undefined))
  // It uses another key name, and would refuse the entry there too.
  const itsName = other.replica.redisNames.record(customer.id)
  expect(itsName).not.toBe(made.nameOf(customer.id))
  await made.redis.set(itsName, entry)
  expect((await other.replica.verify(token)).status).toBe(200)
  expect(other.loads()).toBe(1)
  expect(await outcomes(other.replica, ADMIN_TOKEN)).toMatchObject({ forged: 1, used: 0 })
  // Its own entry is from its own timeline.
  await expect.poll(() => made.redis.get(itsName)).not.toBe(entry)
  expect(await lookAt(customer.id, token, (await made.redis.get(itsName))!)).toBe('forged')
})
