import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, onTestFinished, test } from 'vitest'
import { countHashes } from '../support/hasher.ts'
import { openLink } from '../support/link.ts'
import { pretend, startRedis } from '../support/redis.ts'
import { connected, onRedis, type RedisWorld, redisWorld } from '../support/redis-key-cache.ts'
import { type Answer, makeWorld, type Replica } from '../support/world.ts'

const PER_EMAIL = 10
const PER_ADDRESS = 60

let made: RedisWorld
let there: Replica
let hasher: Awaited<ReturnType<typeof countHashes>>

beforeAll(async () => {
  made = await redisWorld()
  there = await made.world.replica()
  await connected(there)
})
afterAll(() => made.stop())
beforeEach(async () => {
  hasher = await countHashes()
})
afterEach(() => hasher.stop())

const count = (answers: Answer[], status: number) => answers.filter(answer => answer.status === status).length

/** This many concurrent calls, in turn on each replica. */
function logins(
  replicas: Replica[],
  times: number,
  { ip, email }: { ip: string; email: (i: number) => string },
) {
  return Promise.all(
    Array.from({ length: times }, (_, i) => {
      const body = JSON.stringify({ email: email(i), password: 'not this one' })
      const headers = { 'Content-Type': 'application/json' }
      return replicas[i % replicas.length]!.request('/api/auth/login', { method: 'POST', headers, body, ip })
    }),
  )
}

describe('H43 (CVE-2026-110861) two replicas that share a Redis', () => {
  test('of 200 parallel logins to one account, exactly the limit reaches the hasher', async () => {
    let answers: Answer[] = []
    const { started } = await hasher.during(async () => {
      answers = await logins([made.here, there], 200, { ip: '203.0.113.1', email: () => 'one@example.com' })
    })
    expect(started).toBe(PER_EMAIL)
    expect([count(answers, 401), count(answers, 429)]).toEqual([PER_EMAIL, 200 - PER_EMAIL])
    for (const { status, headers } of answers)
      if (status === 429) expect(Number(headers.get('retry-after'))).toBeGreaterThan(0)
  })

  test('of 200 parallel logins from one address, exactly the limit reaches the hasher', async () => {
    const email = (i: number) => `user-${i}@example.com`
    const { started } = await hasher.during(() =>
      logins([made.here, there], 200, { ip: '203.0.113.2', email }),
    )
    expect(started).toBe(PER_ADDRESS)
  })
})

test('a limit ends after its window', async () => {
  await logins([made.here], 11, { ip: '203.0.113.3', email: () => 'two@example.com' })
  for (const name of (await made.names()).filter(name => name.includes(':limit:'))) {
    const life = await made.redis.pTTL(name)
    expect(life).toBeGreaterThan(0)
    expect(life).toBeLessThanOrEqual(600_000)
  }
})

/** A replica with its own Redis. */
async function replicaWith(url: string) {
  const world = await makeWorld({ REDIS_URL: url })
  onTestFinished(() => world.stop())
  const replica = await world.replica()
  await connected(replica)
  return replica
}

describe('H43 when Redis fails logins still work, and no client exceeds the limit', () => {
  const guesses = (replica: Replica) =>
    logins([replica], 100, { ip: '203.0.113.4', email: () => 'three@example.com' })

  test('when it hangs', async () => {
    const server = await startRedis()
    const replica = await replicaWith(server.url)
    server.freeze()
    const { started } = await hasher.during(() => guesses(replica))
    expect(started).toBe(PER_EMAIL)
  })

  test('when it is gone', async () => {
    const server = await startRedis()
    const replica = await replicaWith(server.url)
    await server.kill()
    const { started } = await hasher.during(() => guesses(replica))
    expect(started).toBe(PER_EMAIL)
    const { email, password } = await replica.signUp()
    expect((await replica.postJson('/api/auth/login', { email, password })).status).toBe(200)
  })

  test('when it is cut off in the middle, each limit can be used up at most once more', async () => {
    const link = await openLink(onRedis().REDIS_URL)
    onTestFinished(() => link.close())
    const replica = await replicaWith(link.url)
    expect(count(await guesses(replica), 401)).toBe(PER_EMAIL)
    link.refuse()
    expect(count(await guesses(replica), 401)).toBe(PER_EMAIL)
    expect(count(await guesses(replica), 401)).toBe(0)
  })

  test.each([
    ['words', '*2\r\n+a\r\n+b\r\n'],
    ['nothing', '_\r\n'],
    ['one number', ':0\r\n'],
  ])('when it answers with %s', async (_, answer) => {
    const replica = await replicaWith(await pretend(() => answer))
    const { started } = await hasher.during(() => guesses(replica))
    expect(started).toBe(PER_EMAIL)
  })

  test('when the value of a counter is not a count', async () => {
    const { here, redis, names } = made
    const email = () => 'four@example.com'
    await logins([here], 1, { ip: '203.0.113.5', email })
    for (const name of (await names()).filter(name => name.includes(':limit:login')))
      await redis.set(name, 'garbage')
    const { started } = await hasher.during(() => logins([here], 100, { ip: '203.0.113.5', email }))
    expect(started).toBe(PER_EMAIL)
  })
})
