import { randomBytes } from 'node:crypto'
import { afterEach, expect, onTestFinished, test } from 'vitest'
import { freePort } from '../support/port.ts'
import { logLines, startAssay, stopAll, until } from '../support/process.ts'
import { startRedis } from '../support/redis.ts'
import { copyDatabase } from '../support/templates.ts'
import { ADMIN_TOKEN } from '../support/world.ts'

afterEach(stopAll)

async function start(redisUrl: string) {
  const { url, drop } = await copyDatabase()
  onTestFinished(drop)
  return startAssay({
    DATABASE_URL: url,
    REDIS_URL: redisUrl,
    MASTER_KEYS: `m1:${randomBytes(32).toString('base64')}`,
    ADMIN_TOKEN,
  })
}

const aboutRedis = (running: { stdout(): string }) =>
  logLines(running).filter(line => line.msg.includes('Redis'))

test('without its Redis the server starts, warns once, is ready, and ends; the password appears nowhere', async () => {
  const port = await freePort()
  const running = await start(`redis://:the-password@127.0.0.1:${port}`)
  expect((await fetch(`${running.url}/readyz`)).status).toBe(200)
  expect(await running.stop()).toBe(0)
  expect(aboutRedis(running)).toEqual([
    expect.objectContaining({ level: 40, err: expect.objectContaining({ detail: 'Redis: ECONNREFUSED' }) }),
  ])
  expect(running.stdout() + running.stderr()).not.toContain('the-password')
})

test('a Redis that is killed and comes back is logged twice, and the server is ready all the time', async () => {
  const server = await startRedis()
  const running = await start(server.url)
  const ready = async () => (await fetch(`${running.url}/readyz`)).status
  expect(await ready()).toBe(200)
  await server.kill()
  await until('the loss is told', () => aboutRedis(running).length === 1)
  expect(await ready()).toBe(200)
  await server.restart()
  await until('the return is told', () => aboutRedis(running).length === 2)
  expect(aboutRedis(running).map(({ level }) => level)).toEqual([40, 30])
  expect(await ready()).toBe(200)
  expect(await running.stop()).toBe(0)
})
