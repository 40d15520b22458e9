import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, onTestFinished, test } from 'vitest'
import { runCli, stopAll } from '../support/process.ts'
import { look, startRedis } from '../support/redis.ts'

/** `assay doctor` runs the commands of a server, because a Redis that answers PING may refuse all of them. */

const folder = mkdtempSync(join(tmpdir(), 'assay-'))
afterAll(async () => {
  await stopAll()
  rmSync(folder, { recursive: true })
})

async function examineRedis(url: string) {
  const { stdout } = await runCli({ REDIS_URL: url, DATA_DIR: folder }, ['doctor', '--offline', '--json'])
  const findings: { check: string }[] = JSON.parse(stdout)
  return findings.find(({ check }) => check === 'redis')
}

async function configure(url: string, ...commands: string[][]) {
  const client = await look(url)
  onTestFinished(() => client.destroy())
  for (const command of commands) await client.sendCommand(command)
}

const asUser = (url: string) => url.replace('redis://', 'redis://assay:the-password@')
const USER = ['ACL', 'SETUSER', 'assay', 'on', '>the-password']

test('a Redis whose user has the suggested permissions is ok, and no test entry stays in it for long', async () => {
  const { url } = await startRedis()
  await configure(url, [...USER])
  const refused = await examineRedis(asUser(url))
  expect(refused).toMatchObject({
    state: 'wrong',
    found: expect.stringMatching(/^its user may not run .*\(NOPERM/),
  })
  const [, rights] = /setuser NAME (.*);/.exec((refused as unknown as { remedy: string }).remedy)!
  await configure(url, [...USER, ...rights!.split(' ')])
  expect(await examineRedis(asUser(url))).toMatchObject({ state: 'ok' })
  const client = await look(url)
  onTestFinished(() => client.destroy())
  for (const key of await client.keys('*')) expect(await client.pTTL(key)).toBeGreaterThan(0)
})

/** Every command in db/redis.ts. */
const SENT = ['SET', 'GETRANGE', 'DEL', 'EVAL', 'PUBLISH', 'SUBSCRIBE']

test.each(SENT)('a Redis that refuses %s is reported with the command', async command => {
  const { url } = await startRedis()
  await configure(url, [...USER, '~assay:*', '&assay:*', '+@all', `-${command}`])
  expect(await examineRedis(asUser(url))).toMatchObject({
    found: expect.stringContaining(`(NOPERM (${command}))`),
  })
})

interface Planted {
  commands?: string[][]
  settings?: string[]
}

test.each<[string, Planted, found: RegExp, remedy: RegExp]>([
  [
    'a replica',
    { commands: [['REPLICAOF', '127.0.0.1', '1']] },
    /replica, which is read-only \(READONLY\)/,
    /primary/,
  ],
  [
    'a full one',
    { commands: [['CONFIG', 'SET', 'maxmemory', '1']] },
    /memory is full \(OOM \(SET\)\)/,
    /allkeys-lru/,
  ],
  [
    'a cluster without slots',
    { settings: ['--cluster-enabled', 'yes'] },
    /\(CLUSTERDOWN \(SET\)\)/,
    /single server/,
  ],
  ['one that asks for a password', { settings: ['--requirepass', 'x'] }, /\(NOAUTH\)/, /REDIS_URL/],
])('%s answers PING and is reported', async (_, { commands, settings = [] }, found, remedy) => {
  const { url } = await startRedis(...settings)
  if (commands) await configure(url, ...commands)
  expect(await examineRedis(url)).toMatchObject({
    state: 'wrong',
    found: expect.stringMatching(found),
    remedy: expect.stringMatching(remedy),
  })
})
