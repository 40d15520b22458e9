import { once } from 'node:events'
import { existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { type AddressInfo, createServer, type Server } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, describe, expect, test } from 'vitest'
import { runAssay, startAssay, stopAll, until } from './support/process.ts'
import { moments, PROMPT_MS, signalAt } from './support/start-signals.ts'
import { beginStart, canUnshare, killStarts } from './support/starting.ts'
import { copyInstallation } from './support/templates.ts'

/** Signals before the server listens, on the embedded database and on databases that don't answer. */

const root = mkdtempSync(join(tmpdir(), 'assay-'))
const servers: Server[] = []

afterEach(async () => {
  killStarts()
  await stopAll()
  for (const server of servers.splice(0)) server.close()
})
afterAll(() => rmSync(root, { recursive: true }))

const kinds = [
  { as: 'an ordinary process', asInit: false, command: ['server/main.ts'] },
  { as: 'process 1', asInit: true, command: ['cli/main.ts', 'serve'] },
]

describe.each(kinds)('a start as $as', ({ asInit, command }) => {
  test.skipIf(asInit && !canUnshare)('ends at a signal at any moment, and releases the folder', async () => {
    const DATA_DIR = copyInstallation(join(root, `started-${asInit}`))
    const made = readdirSync(DATA_DIR).sort()
    for (const { delay, name } of moments(1_000, 250, asInit)) {
      await signalAt(delay, name, { settings: { DATA_DIR }, command, asInit })
      expect(readdirSync(DATA_DIR).sort(), `${name} at ${delay} ms`).toEqual(made)
    }
    await expect(startAssay({ DATA_DIR })).resolves.toMatchObject({ port: expect.any(Number) })
  })

  test.skipIf(asInit && !canUnshare)('ends at a signal while a database is silent', async () => {
    const silent = createServer(socket => socket.on('error', () => {})).listen(0, '127.0.0.1')
    servers.push(silent)
    await once(silent, 'listening')
    const { port } = silent.address() as AddressInfo
    for (const name of ['SIGTERM', 'SIGINT'] as const) {
      const start = beginStart({ settings: postgres(port), command, asInit })
      await once(silent, 'connection')
      const began = performance.now()
      start.signal(name)
      expect(await start.exited).toBe(name === 'SIGTERM' ? 143 : 130)
      expect(performance.now() - began).toBeLessThan(PROMPT_MS)
    }
  })
})

const postgres = (port: number) => ({
  DATABASE_URL: `postgres://assay@127.0.0.1:${port}/assay`,
  MASTER_KEYS: 'm1:MS9JEcHX0lMwCGb7Zc3vdZNnEtw5jkEfq+xPBULSIXk=',
  ADMIN_TOKEN: 'operator-Qm8sVx2Lk9Tz4Wb7Rf1Yc6Hn3Jd5',
})

test.each(['SIGTERM', 'SIGINT'] as const)('a first start that %s ends can be repeated', async name => {
  const DATA_DIR = join(root, `first-${name}`)
  const start = beginStart({ settings: { DATA_DIR }, command: ['server/main.ts'] })
  await until('the folder is locked', () => existsSync(join(DATA_DIR, 'assay.lock')))
  start.signal(name)
  expect(await start.exited).toBe(name === 'SIGTERM' ? 143 : 130)
  expect(existsSync(join(DATA_DIR, 'assay.lock'))).toBe(false)
  expect(await runAssay({ DATA_DIR }, ['migrate'])).toMatchObject({ code: 0, stderr: '' })
})
