import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, expect, test } from 'vitest'
import { freePort } from './support/port.ts'
import { logLines, NODE_COMPILE_CACHE, type Running, startAssay, stopAll, until } from './support/process.ts'
import { copyInstallation } from './support/templates.ts'

/** The server keeps serving when its log can't be written. */

const root = mkdtempSync(join(tmpdir(), 'assay-'))
const MAIN = join(import.meta.dirname, '../server/main.ts')

afterEach(stopAll)
afterAll(() => rmSync(root, { recursive: true }))

/** Sends requests without a credential. Each writes a line of about 150 bytes to the log. */
async function writeLines(url: string, count: number) {
  for (let sent = 0; sent < count; sent += 100)
    await Promise.all(
      Array.from({ length: 100 }, async () => expect((await fetch(`${url}/nothing`)).status).toBe(404)),
    )
}

async function droppedLines({ url }: Pick<Running, 'url'>, dataDir: string): Promise<number> {
  const token = readFileSync(join(dataDir, 'admin.token'), 'utf8').trim()
  const response = await fetch(`${url}/metrics`, { headers: { Authorization: `Bearer ${token}` } })
  return Number(/^assay_log_lines_dropped_total (\d+)$/m.exec(await response.text())![1])
}

test('a log that nobody reads is dropped beyond a limit and counted, and the server keeps running and can end', async () => {
  const DATA_DIR = copyInstallation(join(root, 'stalled'))
  const assay = await startAssay({ DATA_DIR })
  assay.child.stdout!.pause()
  await writeLines(assay.url, 12_000)
  expect(await droppedLines(assay, DATA_DIR)).toBeGreaterThan(0)

  assay.child.stdout!.resume()
  const reported = () => logLines(assay).reduce((sum, line) => sum + (line.dropped ?? 0), 0)
  await until('the gaps are reported', async () => {
    await writeLines(assay.url, 100)
    return reported() === (await droppedLines(assay, DATA_DIR))
  })
  // No line was cut.
  expect(
    assay
      .stdout()
      .split('\n')
      .slice(0, -1)
      .every(line => line.endsWith('}')),
  ).toBe(true)

  assay.child.stdout!.pause()
  await writeLines(assay.url, 4_000)
  assay.child.kill('SIGINT')
  await until('it has ended', () => assay.child.exitCode !== null)
  expect(assay.child.exitCode).toBe(0)
  assay.child.stdout!.resume()
})

/** Every write to /dev/full fails with ENOSPC. */
test('a server with no space for its log starts, serves and ends', async () => {
  const DATA_DIR = copyInstallation(join(root, 'full'))
  const port = await freePort()
  const full = openSync('/dev/full', 'w')
  const env = { PATH: process.env.PATH, NODE_COMPILE_CACHE, PORT: String(port), DATA_DIR }
  const child = spawn(process.execPath, [MAIN], { env, stdio: ['ignore', full, full] })
  const ended = once(child, 'exit')
  const url = `http://127.0.0.1:${port}`
  await until(
    'it serves',
    () =>
      fetch(`${url}/healthz`).then(
        ({ ok }) => ok,
        () => false,
      ),
    30_000,
  )
  await writeLines(url, 200)
  expect(await droppedLines({ url }, DATA_DIR)).toBeGreaterThan(200)
  child.kill('SIGINT')
  expect(await ended).toEqual([0, null])
})
