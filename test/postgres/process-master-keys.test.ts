import { randomBytes } from 'node:crypto'
import type postgres from 'postgres'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { checkValue } from '../../server/crypto/envelope.ts'
import { control } from '../support/database.ts'
import { runAssay, startAssay, stopAll } from '../support/process.ts'
import { copyDatabase } from '../support/templates.ts'

/** H54: if a database and a master key do not match, nothing starts and nothing changes. */

const m1 = randomBytes(32)
const m2 = randomBytes(32)
const wrong = randomBytes(32)
const ring = (...keys: [id: string, bytes: Buffer][]) =>
  keys.map(([id, bytes]) => `${id}:${bytes.toString('base64')}`).join(',')

let database: Awaited<ReturnType<typeof copyDatabase>>
let sql: postgres.Sql
let token: string

const settings = (MASTER_KEYS: string) => ({
  DATABASE_URL: database.url,
  ADMIN_TOKEN: 'operator-Qm8sVx2Lk9Tz4Wb7Rf1Yc6Hn3Jd5',
  MASTER_KEYS,
})

beforeAll(async () => {
  database = await copyDatabase()
  sql = control(database.url)
  const assay = await startAssay(settings(ring(['m1', m1])))
  token = await signUp(assay.url)
  await assay.stop('SIGINT')
})
afterEach(stopAll)
afterAll(async () => {
  await sql.end()
  await database.drop()
})

async function signUp(url: string): Promise<string> {
  const email = `${randomBytes(6).toString('hex')}@example.com`
  const response = await fetch(`${url}/api/auth/signup`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify({ email, password: 'correct horse battery' }),
  })
  return ((await response.json()) as { access_token: string }).access_token
}

const verify = async (url: string, accessToken = token) =>
  (await fetch(`${url}/verify`, { headers: { Authorization: `Bearer ${accessToken}` } })).status

/** Every relation of the schema, and every row of every table. */
async function dump(): Promise<string> {
  const relations = await sql`
    select relname, relkind, relnatts from pg_class where relnamespace = 'assay'::regnamespace order by relname`
  const tables = relations.filter(({ relkind }) => relkind === 'r')
  const rows = await Promise.all(
    tables.map(({ relname }) => sql.unsafe(`select t::text from assay."${relname}" t order by 1`)),
  )
  return JSON.stringify([relations, rows])
}

/** Starts with this ring, expects exit code 78 and an unchanged database, and returns the output. */
async function refused(masterKeys: string): Promise<string> {
  const before = await dump()
  const { code, stdout, stderr } = await runAssay(settings(masterKeys))
  expect(stderr).toContain('MASTER_KEYS')
  expect(code).toBe(78)
  expect(await dump()).toBe(before)
  for (const key of [m1, m2, wrong])
    for (const encoding of ['base64', 'base64url', 'hex'] as const)
      expect(stdout + stderr).not.toContain(key.toString(encoding))
  expect(stderr).not.toMatch(/^\s+at /m)
  return stderr
}

test('H54 another key under the same id is refused with the expected and the actual check value', async () => {
  const said = await refused(ring(['m1', wrong]))
  expect(said).toContain('m1')
  expect(said).toContain(`expected check value ${checkValue({ id: 'm1', bytes: m1 })}`)
  expect(said).toContain(`found ${checkValue({ id: 'm1', bytes: wrong })}`)
})

test('H54 another key under the same id is refused after a new first key too, which is not added', async () => {
  await refused(ring(['m2', m2], ['m1', wrong]))
  expect(await sql`select id from assay.master_keys`).toEqual([{ id: 'm1' }])
})

test('H54 a ring without a key that rows need is refused with its id', async () => {
  const said = await refused(ring(['m2', m2]))
  expect(said).toMatch(/encrypted with m1\b/)
  expect(said).toContain('it has m2')
})

test('H54 the same bytes under another id are a different key', async () => {
  await refused(ring(['m3', m1]))
})

test('H54 a changed installation key cannot be decrypted, and is not replaced', async () => {
  const [{ sealed_key: sealed } = { sealed_key: Buffer.of() }] = await sql<{ sealed_key: Buffer }[]>`
    select sealed_key from assay.installation`
  const flipped = Buffer.from(sealed)
  flipped[flipped.length - 1]! ^= 1
  await sql`update assay.installation set sealed_key = ${flipped}`
  expect(await refused(ring(['m1', m1]))).toContain('installation key')
  await sql`update assay.installation set sealed_key = ${sealed}`
})

test('H54 with the right key restored, everything works as before', async () => {
  const assay = await startAssay(settings(ring(['m1', m1])))
  expect(await verify(assay.url)).toBe(200)
})

test('a new master key comes first, before the old one: old tokens stay valid, new customers use it', async () => {
  const assay = await startAssay(settings(ring(['m2', m2], ['m1', m1])))
  expect(await verify(assay.url)).toBe(200)
  expect(await verify(assay.url, await signUp(assay.url))).toBe(200)
  expect(await sql`select id from assay.master_keys order by id`).toEqual([{ id: 'm1' }, { id: 'm2' }])
  const sealedUnder = await sql`
    select convert_from(substring(sealed_data_key from 4 for 2), 'UTF8') as id from assay.customers order by 1`
  expect(sealedUnder.map(({ id }) => id)).toEqual(['m1', 'm2'])
  await assay.stop('SIGINT')
  expect(await refused(ring(['m2', m2]))).toMatch(/encrypted with m1\b/)
  expect(await refused(ring(['m1', m1]))).toMatch(/encrypted with m2\b/)
})
