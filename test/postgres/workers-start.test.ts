import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { type AddressInfo, createServer } from 'node:net'
import { availableParallelism } from 'node:os'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { logLines, runAssay, startAssay, stopAll } from '../support/process.ts'
import { copyDatabase } from '../support/templates.ts'
import { pidOf } from '../support/workers.ts'

/** Several processes that can't start: one message with the fix, and one exit code. */

let database: Awaited<ReturnType<typeof copyDatabase>>

const settings = (more: Record<string, string> = {}) => ({
  DATABASE_URL: database.url,
  MASTER_KEYS: `m1:${Buffer.alloc(32, 'a master key of a test').toString('base64')}`,
  ADMIN_TOKEN: 'operator-Qm8sVx2Lk9Tz4Wb7Rf1Yc6Hn3Jd5',
  WORKERS: '3',
  ...more,
})

beforeAll(async () => {
  database = await copyDatabase()
})
afterAll(async () => {
  await stopAll()
  await database.drop()
})

/** Expects this exit code; returns the one message. */
async function refusalOf(code: number, more: Record<string, string>) {
  const ended = await runAssay(settings(more))
  expect(ended.stderr.match(/^assay: /gm)).toHaveLength(1)
  expect(ended.stderr).not.toMatch(/^\s+at /m)
  expect(ended.stdout).not.toContain('"msg":"listening"')
  expect(ended.code).toBe(code)
  return ended.stderr
}

test('WORKERS=auto is one worker per core', async () => {
  const auto = await startAssay(settings({ WORKERS: 'auto' }))
  const { workers = 1 } = logLines(auto).find(({ msg }) => msg === 'listening')
  expect(workers).toBe(Math.min(availableParallelism(), 64))
  expect(await auto.stop('SIGINT')).toBe(0)
})

test('no worker has a secret in its environment', async () => {
  const OPERATORS = 'alice:alice-8Vd2Kq7Zx1Wm5Tn9Rc4Yb6Hf3Jg0Ls'
  const own = settings({ WORKERS: '2' })
  const assay = await startAssay({ ...own, OPERATORS })
  const environments = [1, 2].map(worker => readFileSync(`/proc/${pidOf(assay, worker)}/environ`, 'utf8'))
  for (const environment of environments) {
    expect(environment).toContain('WORKERS=2')
    for (const secret of [own.DATABASE_URL, own.MASTER_KEYS, own.ADMIN_TOKEN, OPERATORS])
      expect(environment).not.toContain(secret)
  }
  expect(await assay.stop('SIGINT')).toBe(0)
})

test('with the embedded database they are refused (78)', async () => {
  for (const WORKERS of ['2', 'auto'])
    expect(await refusalOf(78, { DATABASE_URL: '', WORKERS })).toMatch(
      /^WORKERS: .*embedded.*DATABASE_URL.*WORKERS=1$/m,
    )
})

test('a port in use is reported once (78)', async () => {
  const other = createServer().listen(0, '127.0.0.1')
  await once(other, 'listening')
  const { port } = other.address() as AddressInfo
  const message = await refusalOf(78, { PORT: String(port) })
  expect(message).toContain(`port ${port}`)
  other.close()
})

test('a missing database is reported once (69)', async () => {
  const url = new URL(database.url)
  url.pathname = '/no_such_secretbase'
  const message = await refusalOf(69, { DATABASE_URL: url.href })
  expect(message).toContain('DATABASE_URL')
  expect(message).not.toContain('secretbase')
})

test('a master key that does not match is reported once (78)', async () => {
  const own = await startAssay(settings({ WORKERS: '1' }))
  expect(await own.stop('SIGINT')).toBe(0)
  const MASTER_KEYS = `m1:${Buffer.alloc(32, 'some other master key').toString('base64')}`
  expect(await refusalOf(78, { MASTER_KEYS })).toContain('master key m1: expected check value')
})
