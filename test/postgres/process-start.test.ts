import { randomBytes } from 'node:crypto'
import type postgres from 'postgres'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { control, direct } from '../support/database.ts'
import { logLines, type Running, runAssay, startAssay, stopAll } from '../support/process.ts'
import { copyDatabase } from '../support/templates.ts'

let database: Awaited<ReturnType<typeof copyDatabase>>
let sql: postgres.Sql

const secrets = {
  MASTER_KEYS: `m1:${randomBytes(32).toString('base64')}`,
  ADMIN_TOKEN: randomBytes(32).toString('hex'),
}
const start = (url = database.url) =>
  startAssay({ ...secrets, DATABASE_URL: url, DIRECT_DATABASE_URL: direct(url) })

beforeAll(async () => {
  database = await copyDatabase()
  sql = control(database.url)
})
afterEach(stopAll)
afterAll(async () => {
  await sql.end()
  await database.drop()
})

const replicas = async () => (await sql`select id from assay.replicas`).length
const warnings = (assay: Running) => logLines(assay).filter(({ level }) => level >= 40)

test('`npm run migrate` migrates an empty database, and ends', async () => {
  const { code, stdout, stderr } = await runAssay({ ...secrets, DATABASE_URL: database.url }, ['migrate'])
  expect({ code, stdout, stderr }).toEqual({ code: 0, stdout: '', stderr: '' })
  expect(await sql`select 1 from assay.migrations`).not.toHaveLength(0)
  expect(await sql`select 1 from assay.installation`).toHaveLength(0)
})

test.each(['SIGTERM', 'SIGINT'] as const)(
  'a server that stops by %s is no longer listed as a replica',
  async signal => {
    const assay = await start()
    expect(await replicas()).toBe(1)
    expect(await assay.stop(signal)).toBe(0)
    expect(await replicas()).toBe(0)
    expect(assay.stderr()).not.toMatch(/^\s+at /m)
  },
)

test('a missing database ends the start with 69, without any part of the URL', async () => {
  const url = new URL(database.url)
  url.username ||= 'postgres'
  url.password = 'hunter2-Zq8Lk3'
  url.pathname = '/no_such_secretbase'
  const { code, stdout, stderr } = await runAssay({ ...secrets, DATABASE_URL: url.href })
  expect(code).toBe(69)
  expect(stderr).toContain('DATABASE_URL')
  for (const word of ['hunter2', 'secretbase', 'postgres://', secrets.ADMIN_TOKEN])
    expect(stdout + stderr).not.toContain(word)
  expect(stderr).not.toMatch(/^\s+at /m)
})

test('synchronous_commit=off in the database causes no warning: our connections set it to on', async () => {
  const name = new URL(database.url).pathname.slice(1)
  await sql.unsafe(`alter database ${name} set synchronous_commit = off`)
  const assay = await start()
  expect(warnings(assay)).toEqual([])
  await sql.unsafe(`alter database ${name} reset synchronous_commit`)
})

test('fsync=off causes a loud warning, and the server starts anyway', async () => {
  // fsync is a setting of the whole server, which other tests share: this database only claims that it is off.
  const name = new URL(database.url).pathname.slice(1)
  await sql.unsafe(`
    create schema unsafe;
    grant usage on schema unsafe to public;
    create function unsafe.current_setting(name text) returns text language sql as
      $$ select case name when 'fsync' then 'off' else pg_catalog.current_setting(name) end $$;
    alter database ${name} set search_path = unsafe, pg_catalog, public`)
  const assay = await start(direct(database.url))
  expect(warnings(assay).map(({ msg }) => msg)).toEqual([
    expect.stringMatching(/^fsync is off .*LOSES REVOCATIONS/),
  ])
  await sql.unsafe(`alter database ${name} reset search_path`)
})
