import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { logLines, type Running, startAssay, stopAll, until } from '../support/process.ts'
import { copyDatabase, copyInstallation } from '../support/templates.ts'
import { connectTo, replaceWorker } from '../support/workers.ts'

/** Operators' tokens in files, with several processes on one port. */

let database: Awaited<ReturnType<typeof copyDatabase>>
const folder = mkdtempSync(join(tmpdir(), 'assay-credentials-'))
const file = join(folder, 'admin')
const OLD = 'old-Qm8sVx2Lk9Tz4Wb7Rf1Yc6Hn3Jd5Pa0'
const NEW = 'new-Qm8sVx2Lk9Tz4Wb7Rf1Yc6Hn3Jd5Pa0'

beforeAll(async () => {
  database = await copyDatabase()
  writeFileSync(file, OLD)
})
afterAll(async () => {
  await stopAll()
  await database.drop()
  rmSync(folder, { recursive: true })
})

const reloads = (assay: Running) =>
  logLines(assay).filter(({ msg }) => msg.startsWith('credentials were reloaded')).length

test('a new operator token is used by every process within ten seconds, and by a replacement worker', async () => {
  const assay = await startAssay({
    DATABASE_URL: database.url,
    MASTER_KEYS: `m1:${Buffer.alloc(32, 'a master key of a test').toString('base64')}`,
    ADMIN_TOKEN_FILE: file,
    WORKERS: '2',
  })
  const statuses = async (token: string) =>
    Promise.all(
      [1, 2].map(async worker => {
        const connection = await connectTo(assay, worker)
        const { status } = await connection.ask('/admin/customers', { token })
        connection.close()
        return status
      }),
    )
  expect([await statuses(OLD), await statuses(NEW)]).toEqual([
    [200, 200],
    [401, 401],
  ])
  writeFileSync(file, NEW)
  // The first process reads the file too, for workers that start later.
  await expect.poll(() => reloads(assay)).toBe(3)
  expect([await statuses(OLD), await statuses(NEW)]).toEqual([
    [401, 401],
    [200, 200],
  ])

  // A worker that starts now finds no file, and must not return to the token that the first process started with.
  rmSync(file)
  await replaceWorker(assay, 1)
  expect([await statuses(OLD), await statuses(NEW)]).toEqual([
    [401, 401],
    [200, 200],
  ])
  expect(reloads(assay)).toBe(3)
  expect(assay.stdout() + assay.stderr()).not.toMatch(/Qm8sVx2/)
})

test('the operator token in the data folder can be replaced too', async () => {
  const dataDir = copyInstallation(join(folder, 'data'))
  const assay = await startAssay({ DATA_DIR: dataDir })
  const statusOf = async (token: string) =>
    (await fetch(`${assay.url}/admin/customers`, { headers: { Authorization: `Bearer ${token}` } })).status
  const old = readFileSync(join(dataDir, 'admin.token'), 'utf8').trim()
  expect([await statusOf(old), await statusOf(NEW)]).toEqual([200, 401])
  writeFileSync(join(dataDir, 'admin.token'), `${NEW}\n`)
  await until('the new token is accepted', async () => (await statusOf(NEW)) === 200)
  expect(await statusOf(old)).toBe(401)
})
