import { expect, inject, onTestFinished, test } from 'vitest'
import { openRedis } from '../../db/redis.ts'
import { openLink } from '../support/link.ts'
import { look, pretend, startRedis } from '../support/redis.ts'

/** Longer than the default, so that a busy machine is not mistaken for a Redis that hangs (ms). */
const DEADLINE = 400
/** The limit for many calls that do not wait, and for one timeout; both on a busy machine (ms). */
const SOON = 2_000

/** A connection, with its log. */
function openRedisLink(url: string, reread?: () => Promise<string>) {
  const told: string[] = []
  const log = {
    info: (message: string) => void told.push(message),
    warn: ({ err }: { err: Error }, message: string) => void told.push(`${message}: ${err.message}`),
  }
  const redis = openRedis(url, log, { deadlineMs: DEADLINE, reread })
  onTestFinished(() => redis.close())
  const name = `assay:test:${Math.random().toString(36).slice(2)}`
  const works = () =>
    redis.set(name, 'here', 10_000).then(
      () => true,
      () => false,
    )
  const used = () => expect.poll(works, { interval: 20 }).toBe(true)
  return { redis, told, name, works, used }
}

async function timed(run: () => Promise<unknown>): Promise<number> {
  const began = performance.now()
  await run()
  return performance.now() - began
}

const GONE = "Redis can't be used"
const goings = (told: string[]) => told.map(line => (line.startsWith(GONE) ? 'gone' : line))

test('a value is kept until it expires, and no more of it is read than requested', async () => {
  const { redis, name, used } = openRedisLink(inject('redisUrl'))
  await used()
  expect(await redis.get(name, 100)).toBe('here')
  expect(await redis.get(name, 2)).toBe('he')
  expect(await redis.get(`${name}:none`, 100)).toBe(undefined)
  const client = await look()
  const life = await client.pTTL(name)
  client.destroy()
  expect(life).toBeGreaterThan(0)
  expect(life).toBeLessThanOrEqual(10_000)
})

test('a Redis that is killed is logged once, costs nothing while it is away, and is used when it is back', async () => {
  const server = await startRedis()
  const { redis, told, name, used, works } = openRedisLink(server.url)
  await used()
  await server.kill()
  await expect.poll(() => goings(told)).toEqual(['gone'])
  const failed = redis.failures()
  expect(await timed(() => Promise.all(Array.from({ length: 1_000 }, works)))).toBeLessThan(SOON)
  expect(redis.failures()).toBe(failed + 1_000)
  await server.restart()
  await used()
  expect(await redis.get(name, 100)).toBe('here')
  expect(goings(told)).toEqual(['gone', 'Redis can be used again'])
})

test('a Redis that hangs costs one timeout, and nothing after it', async () => {
  const server = await startRedis()
  const { told, used, works } = openRedisLink(server.url)
  await used()
  server.freeze()
  expect(await timed(works)).toBeLessThan(SOON)
  expect(goings(told)).toEqual(['gone'])
  // One after another: if each waited for the timeout, this would take minutes.
  expect(
    await timed(async () => {
      for (let i = 0; i < 2_000; i++) expect(await works()).toBe(false)
    }),
  ).toBeLessThan(SOON)
  server.thaw()
  await used()
  expect(goings(told)).toEqual(['gone', 'Redis can be used again'])
})

test('a Redis that hangs while it is in use costs each call one timeout at most', async () => {
  const server = await startRedis()
  const { told, used, works } = openRedisLink(server.url)
  await used()
  server.freeze()
  const asked: Promise<number>[] = []
  const asking = setInterval(() => asked.push(timed(works)), DEADLINE / 20)
  onTestFinished(() => clearInterval(asking))
  await expect.poll(() => goings(told)).toEqual(['gone'])
  clearInterval(asking)
  expect(Math.max(...(await Promise.all(asked)))).toBeLessThan(SOON)
})

test('a connection that drops everything is closed, and works again after reconnecting', async () => {
  const link = await openLink(inject('redisUrl'))
  onTestFinished(() => link.close())
  const { redis, told, used } = openRedisLink(link.url)
  let messages = 0
  redis.subscribe('assay:test:none', () => messages++)
  await used()
  await expect.poll(() => messages).toBe(1)
  link.set({ swallow: true })
  // Without any call: the connection itself detects the fault.
  await expect.poll(() => goings(told)).toEqual(['gone'])
  await link.fair()
  await used()
  await expect.poll(() => messages).toBe(2)
})

test('a slow Redis is not used', async () => {
  const link = await openLink(inject('redisUrl'))
  onTestFinished(() => link.close())
  link.set({ delay: DEADLINE })
  const { told, works } = openRedisLink(link.url)
  await expect.poll(() => goings(told)).toEqual(['gone'])
  expect(await timed(() => Promise.all(Array.from({ length: 100 }, works)))).toBeLessThan(SOON)
  expect(link.counts.accepted).toBeGreaterThan(0)
})

test.each([
  ['a wrong password', 'redis://:not-the-password@', 'WRONGPASS'],
  ['no password where one is needed', 'redis://', 'NOAUTH'],
])('%s is logged once, with its reason and without its text', async (_, credentials, reason) => {
  const server = await startRedis('--requirepass', 'the-password')
  const { told, works } = openRedisLink(server.url.replace('redis://', credentials))
  await expect.poll(() => told.length).toBe(1)
  // After several attempts to connect.
  await new Promise(resolve => setTimeout(resolve, 1_000))
  expect(await works()).toBe(false)
  expect(told).toEqual([expect.stringContaining(`Redis: ${reason}`)])
  expect(told.join()).not.toContain('password')
})

test('a full Redis stores no more; that is logged once, and its existing entries can be read', async () => {
  const server = await startRedis()
  const { redis, told, name, used, works } = openRedisLink(server.url)
  await used()
  const client = await look(server.url)
  await client.configSet('maxmemory', '1')
  client.destroy()
  for (let i = 0; i < 10; i++) expect(await works()).toBe(false)
  expect(await redis.get(name, 100)).toBe('here')
  expect(told).toEqual([expect.stringContaining('Redis: OOM')])
})

test('a demoted primary is left, and the new one is used as soon as the address leads to it', async () => {
  const [demoted, promoted] = [await startRedis(), await startRedis()]
  const link = await openLink(demoted.url)
  onTestFinished(() => link.close())
  const { told, used, works } = openRedisLink(link.url)
  await used()
  const client = await look(demoted.url)
  onTestFinished(() => client.destroy())
  await client.sendCommand(['REPLICAOF', '127.0.0.1', new URL(promoted.url).port])
  // Without any call: the connection itself checks the role.
  await expect.poll(() => goings(told)).toEqual(['gone'])
  expect(told[0]).toContain('Redis: READONLY')
  expect(await works()).toBe(false)
  link.leadTo(promoted.url)
  await used()
  expect(goings(told)).toEqual(['gone', 'Redis can be used again'])
})

test('it receives published messages, also after an outage', async () => {
  const server = await startRedis()
  const { redis, name, used } = openRedisLink(server.url)
  let messages = 0
  redis.subscribe(name, () => messages++)
  await used()
  await expect.poll(() => messages).toBe(1)
  await redis.publish(name, '')
  await expect.poll(() => messages).toBe(2)
  await server.kill()
  await server.restart()
  await used()
  // One for the new connection, because messages may have been missed.
  await expect.poll(() => messages).toBe(3)
  await redis.publish(name, '')
  await expect.poll(() => messages).toBe(4)
})

test('a new password is used once the file of the URL has it', async () => {
  const server = await startRedis('--requirepass', 'first')
  const at = (password: string) => server.url.replace('redis://', `redis://:${password}@`)
  let inFile = at('first')
  const { told, works, used } = openRedisLink(at('first'), async () => inFile)
  await used()
  const admin = await look(at('first'))
  await admin.configSet('requirepass', 'second')
  await admin.clientKill({ filter: 'SKIPME', skipMe: true } as never)
  admin.destroy()
  await expect.poll(() => goings(told)).toEqual(['gone'])
  expect(await works()).toBe(false)
  inFile = at('second')
  await used()
  expect(goings(told)).toEqual(['gone', 'Redis can be used again'])
})

test('a server that is not Redis is never used, and does no harm', async () => {
  const url = await pretend(() => 'HTTP/1.1 400 Bad Request\r\n\r\n', {})
  const { told, works } = openRedisLink(url)
  await expect.poll(() => goings(told)).toEqual(['gone'])
  expect(await works()).toBe(false)
})

test.each([
  ['garbage', '\0\xff\x00{]garbage\r\n'],
  ['more than it was asked for', '$1\r\na\r\n$1\r\nb\r\n$1\r\nc\r\n'],
  ['a list where text belongs', '*2\r\n:1\r\n:2\r\n'],
  ['a half', '$100000\r\nabc'],
  ['an error without a name', '-\r\n'],
])('a Redis that answers %s does no harm, and is used once it recovers', async (_, strange) => {
  let answer = strange
  const url = await pretend(() => answer)
  const { redis } = openRedisLink(url)
  const outcomes = new Set<string>()
  for (let asked = 0; asked < 20; asked++) {
    const asking = redis.get('a', 10).then(String, error => error.constructor.name)
    outcomes.add(await asking)
    await new Promise(resolve => setTimeout(resolve, 50))
  }
  expect([...outcomes].filter(outcome => !['RedisFailure', 'a', 'b'].includes(outcome))).toEqual([])
  expect(outcomes).toContain('RedisFailure')
  answer = '$4\r\nwell\r\n'
  const get = () => redis.get('a', 10).catch(() => 'failed')
  await expect.poll(get, { interval: 20 }).toBe('well')
})
