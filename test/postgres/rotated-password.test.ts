import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { type OwnPostgres, startPostgres } from '../../faults/postgres.ts'
import { ask, signUp } from '../support/calls.ts'
import { type CreatedDatabase, changed, createDatabase, SERVES } from '../support/database.ts'
import { logLines, type Running, startAssay, stopAll, until } from '../support/process.ts'
import { replaceWorker } from '../support/workers.ts'

/** The serving role gets another password while servers run. The server requires it (SCRAM). */

let server: OwnPostgres
let database: CreatedDatabase
const folder = mkdtempSync(join(tmpdir(), 'assay-password-'))
const file = join(folder, 'database-url')
const settings = () => ({
  DATABASE_URL_FILE: file,
  MASTER_KEYS: `m1:${Buffer.alloc(32, 'a master key of a test').toString('base64')}`,
  ADMIN_TOKEN: 'operator-Qm8sVx2Lk9Tz4Wb7Rf1Yc6Hn3Jd5',
})

beforeAll(async () => {
  server = await startPostgres()
  database = await createDatabase(server.url)
})
afterEach(stopAll)
afterAll(async () => {
  await server.stop()
  rmSync(folder, { recursive: true })
})

/** Nothing else that a server prints contains one of these. */
const passwords = {
  first: 'pw-7Kd2first',
  second: 'pw-7Kd2second',
  third: 'pw-7Kd2third',
  fourth: 'pw-7Kd2fourth',
}
const anyPassword = /pw-7Kd2/

const urlWith = (password: string) => changed(database.url, { password })
const setPassword = (password: string) => server.ask(`alter role ${SERVES} password '${password}'`)
const endConnections = () =>
  server.ask(`select count(pg_terminate_backend(pid)) from pg_stat_activity where usename = '${SERVES}'`)
const hasListener = async () =>
  (await server.ask(
    `select count(*) from pg_stat_activity where usename = '${SERVES}' and query = 'listen assay_changes'`,
  )) !== '0'

/** A server with the first password, under load from several clients. */
async function startUnderLoad(more: Record<string, string> = {}) {
  await setPassword(passwords.first)
  writeFileSync(file, urlWith(passwords.first))
  const assay = await startAssay({ ...settings(), ...more })
  const { apiKey } = await signUp(assay)
  const answers: { at: number; status: number }[] = []
  let isOver = false
  const client = async () => {
    while (!isOver) {
      const { status } = await issueAt(assay, apiKey)
      answers.push({ at: performance.now(), status })
    }
  }
  const clients = Array.from({ length: 4 }, client)
  const stop = async () => {
    isOver = true
    await Promise.all(clients)
  }
  return { assay, apiKey, answers, stop }
}

const issueAt = (assay: Running, token: string) => ask(assay, '/issue', { json: {}, token })

test('a password that is in the file before it is in the database needs no restart, and every connection uses it', async () => {
  const { assay, apiKey, answers, stop } = await startUnderLoad({ WORKERS: '2' })
  writeFileSync(file, urlWith(passwords.second))
  await setPassword(passwords.second)
  await endConnections()
  const ended = performance.now()
  await until('it issues', async () => (await issueAt(assay, apiKey)).status === 200)
  await until('notifications are heard', hasListener)
  await until('it answers for a while', () => performance.now() > ended + 2_000)
  await stop()
  const failed = answers.filter(({ status }) => status !== 200)
  // Calls on a connection that was ended may fail.
  expect(failed.every(({ status, at }) => status === 503 && at < ended + 1_000)).toBe(true)
  process.stdout.write(`another password: ${failed.length} of ${answers.length} answers failed\n`)
  // A worker that starts later gets the URL that the first process read at its start.
  await replaceWorker(assay, 1)
  expect((await issueAt(assay, apiKey)).status).toBe(200)
  expect(
    logLines(assay).filter(({ msg }) => msg.startsWith('the server refused a login')).length,
  ).toBeGreaterThan(0)
  expect(assay.stdout() + assay.stderr()).not.toMatch(anyPassword)
})

test('a password that the database has first is used within a second of the change of the file', async () => {
  const { assay, apiKey, stop } = await startUnderLoad()
  await setPassword(passwords.third)
  await endConnections()
  await until('nothing is issued', async () => (await issueAt(assay, apiKey)).status === 503)
  writeFileSync(file, urlWith(passwords.third))
  const began = performance.now()
  await until('it issues', async () => (await issueAt(assay, apiKey)).status === 200)
  const took = Math.round(performance.now() - began)
  process.stdout.write(`the file has the password: it issues ${took} ms later\n`)
  expect(took).toBeLessThan(1_500)
  await stop()
})

test('a file with another target, or without a URL, is not used, and is logged once each', async () => {
  const { assay, apiKey, stop } = await startUnderLoad()
  await setPassword(passwords.fourth)
  const told = () => logLines(assay).filter(({ level, problem }) => level === 40 && problem)
  writeFileSync(file, changed(urlWith(passwords.fourth), { pathname: '/another' }))
  await endConnections()
  await until('it is told', () => told().length === 1)
  writeFileSync(file, `postgres:/no url with ${passwords.fourth}`)
  await until('it is told', () => told().length === 2)
  rmSync(file)
  await until('it is told', () => told().length === 3)
  expect((await issueAt(assay, apiKey)).status).toBe(503)
  writeFileSync(file, urlWith(passwords.fourth))
  await until('it issues', async () => (await issueAt(assay, apiKey)).status === 200)
  await stop()
  expect(told().map(({ problem }) => problem)).toEqual([
    expect.stringMatching(/^DATABASE_URL_FILE: more than the user and the password .* restart/),
    expect.stringMatching(/^DATABASE_URL_FILE: its content is not a valid URL/),
    expect.stringMatching(/^DATABASE_URL_FILE: .*ENOENT/),
  ])
  expect(assay.stdout() + assay.stderr()).not.toMatch(anyPassword)
})
