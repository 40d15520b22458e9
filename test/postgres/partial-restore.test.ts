import { randomBytes } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, inject, onTestFinished, test } from 'vitest'
import { signUp } from '../support/calls.ts'
import { control, createDatabase, createEmptyDatabase, MIGRATES } from '../support/database.ts'
import { logLines, runAssay, runCli, startAssay, stopAll } from '../support/process.ts'
import { refusalOf } from '../support/refusal.ts'
import { copyDatabase } from '../support/templates.ts'

/** A database that was partially restored, or isn't Assay's: the start refuses it in one sentence, and changes nothing. */

const secrets = {
  MASTER_KEYS: `m1:${randomBytes(32).toString('base64')}`,
  ADMIN_TOKEN: randomBytes(32).toString('hex'),
}
/** It has no connections: each test damages a copy of it. */
let sound: Awaited<ReturnType<typeof copyDatabase>>

beforeAll(async () => {
  sound = await copyDatabase()
  // Bypasses a pooler, which would stay connected.
  const assay = await startAssay({ ...secrets, DATABASE_URL: sound.migrateUrl, TRUST_PROXY: '127.0.0.1' })
  await signUp(assay)
  await assay.stop('SIGINT')
})
afterAll(async () => {
  await stopAll()
  await sound.drop()
})

/** The database of one test. */
async function own(database: ReturnType<typeof createDatabase>) {
  const { migrateUrl, drop } = await database
  const url = migrateUrl
  const sql = control(url)
  onTestFinished(async () => {
    await sql.end()
    await drop()
  })
  return { url, sql }
}

const copy = () => own(createDatabase(inject('databaseUrl'), sound.url))
const empty = () => own(createEmptyDatabase(inject('databaseUrl')))

type Sql = ReturnType<typeof control>

/** Every row of every existing table, and all other objects. */
async function contents(sql: Sql) {
  const objects = await sql`
    select n.nspname, c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where n.nspname !~ '^pg_' and n.nspname <> 'information_schema' order by 1, 2`
  const tables =
    await sql`select table_name as name from information_schema.tables where table_schema = 'assay'`
  const rows = await Promise.all(
    tables.map(async ({ name }) => [name, await sql.unsafe(`select * from assay.${name} order by 1`)]),
  )
  return { objects: [...objects], rows: Object.fromEntries(rows) }
}

async function expectRefused(url: string, found: RegExp) {
  const { code, stdout, stderr } = await runAssay({ ...secrets, DATABASE_URL: url })
  expect(stderr).toMatch(found)
  expect(stderr).toMatch(/restore the whole backup .* or use another database\n$/)
  expect(stderr.trim().split('\n')).toHaveLength(1)
  expect({ code, stdout }).toEqual({ code: 69, stdout: '' })
}

const DAMAGES: Record<string, [damage: string, found: RegExp]> = {
  'a table is missing': ['drop table assay.sessions', /lacks sessions:/],
  'many tables are missing': [
    'drop table assay.sessions, assay.change_feed, assay.api_keys, assay.replicas, assay.master_keys',
    /lacks api_keys, change_feed, master_keys and 2 more:/,
  ],
  'all tables but the record of migrations are missing': [
    `do $$ declare name text; begin
      for name in select tablename from pg_tables where schemaname = 'assay' and tablename !~ '^(migrations|audit_events_)' loop
        execute 'drop table assay.' || name || ' cascade';
      end loop;
    end $$`,
    /lacks .* and \d+ more:/,
  ],
  'a column is missing': ['alter table assay.sessions drop column ip', /lacks sessions\.ip:/],
  'an index is missing': ['drop index assay.customers_email', /lacks customers\.customers_email:/],
  'a primary key is missing': [
    'alter table assay.revocations drop constraint revocations_pkey',
    /lacks revocations\.revocations_pkey:/,
  ],
  'the sequence is missing': ['drop sequence assay.epochs', /lacks epochs:/],
  'the clock is missing': ['drop function assay.now cascade', /lacks function now:/],
  'the record of migrations is missing': [
    'drop table assay.migrations',
    /has api_keys, .* and \d+ more but no record of a migration:/,
  ],
  'the record of migrations is empty': [
    'delete from assay.migrations',
    /has api_keys, .* but no record of a migration:/,
  ],
  'part of the record of migrations is missing': [
    'delete from assay.migrations where id > 1',
    /differs from what its migrations create \(SQLSTATE 42P07\):/,
  ],
  'the rows of the installation are missing': [
    'delete from assay.installation',
    /has customers but no installation:/,
  ],
  'the row of the counter is missing': ['delete from assay.change_feed', /has no counter of revocations:/],
  'there are two counters': [
    'insert into assay.change_feed values (1000)',
    /has more than one counter of revocations:/,
  ],
  'the counter is that of an empty database': [
    `update assay.change_feed set seq = 0; insert into assay.revocations (seq, kind, customer_id, dead_after)
      values (7, 'customer', 'x', assay.now())`,
    /has revocations beyond its counter:/,
  ],
  'the sequence is that of an empty database': [
    'update assay.customers set epoch = 7',
    /has epochs beyond its sequence:/,
  ],
  'the check values of the master keys are missing': [
    'delete from assay.master_keys',
    /has an installation but no check value of any master key:/,
  ],
  'the secrets of all customers are missing': [
    'delete from assay.signing_keys',
    /has customers but no signing keys:/,
  ],
  'two things are wrong': [
    'delete from assay.change_feed; delete from assay.signing_keys',
    /has no counter of revocations, and has customers but no signing keys:/,
  ],
}

describe('a partially restored database does not start', () => {
  test.each(Object.entries(DAMAGES))('%s', async (_, [damage, found]) => {
    const { url, sql } = await copy()
    await sql.unsafe(damage)
    const before = await contents(sql)
    const { code, message } = await refusalOf(url)
    expect(message).toMatch(found)
    expect(message).toMatch(/^assay: [^\n]*restore the whole backup .* or use another database$/)
    expect(code).toBe(69)
    expect(await contents(sql)).toEqual(before)
  })

  test('and the process reports it in one line', async () => {
    const { url, sql } = await copy()
    const [damage, found] = DAMAGES['two things are wrong']!
    await sql.unsafe(damage)
    await expectRefused(url, found)
  })

  test('the customers belong to another installation with the same master keys', async () => {
    const other = await empty()
    await (await startAssay({ ...secrets, DATABASE_URL: other.url })).stop('SIGINT')
    const [installation] = await other.sql`select id, sealed_key from assay.installation`
    const { url, sql } = await copy()
    await sql`update assay.installation set ${sql(installation!)}`
    const before = await contents(sql)
    await expectRefused(url, /has customers whose keys can't be decrypted with MASTER_KEYS \(1 tried\):/)
    expect(await contents(sql)).toEqual(before)
  })
})

test('one of two customers whose key cannot be decrypted does not prevent a start', async () => {
  const { url, sql } = await copy()
  await sql`insert into assay.customers (id, email, password_hash, sealed_data_key)
    select 'aaaaaaaaaaaaaaaa', 'a@example.com', password_hash, sealed_data_key from assay.customers`
  const assay = await startAssay({ ...secrets, DATABASE_URL: url })
  expect((await fetch(`${assay.url}/readyz`)).status).toBe(200)
  await assay.stop('SIGINT')
})

test.each([
  ['with tables', 'create table assay.things (id int)', /has things but no record/],
  [
    'with a record of migrations of its own',
    'create table assay.migrations (name text)',
    /differs from what its migrations create \(SQLSTATE 42703\)/,
  ],
])('another program’s schema of the same name, %s, is unchanged', async (_, made, found) => {
  const { url, sql } = await empty()
  await sql.unsafe(`set role ${MIGRATES}; ${made}; reset role`)
  const before = await contents(sql)
  await expectRefused(url, found)
  const migrated = await runAssay({ ...secrets, DATABASE_URL: url }, ['migrate'])
  expect(migrated).toMatchObject({ code: 69, stderr: expect.stringMatching(found) })
  expect(await contents(sql)).toEqual(before)
})

describe('`assay doctor` reports the same', () => {
  test.each([
    ['a table is missing', 'migrations'],
    ['the record of migrations is missing', 'migrations'],
    ['the rows of the installation are missing', 'installation'],
  ])('%s', async (name, check) => {
    const { url, sql } = await copy()
    const [damage, found] = DAMAGES[name]!
    await sql.unsafe(damage)
    const { code, stdout } = await runCli({ ...secrets, DATABASE_URL: url }, [
      'doctor',
      '--json',
      '--offline',
    ])
    expect(code).toBe(1)
    const finding = JSON.parse(stdout).find((one: { check: string }) => one.check === check)
    expect(finding).toMatchObject({
      state: 'wrong',
      remedy: expect.stringContaining('restore the whole backup'),
    })
    expect(`${finding.found}:`).toMatch(found)
  })
})

describe('an empty database', () => {
  test('can be served, and the log says that it is a new installation and where, in case customers were expected', async () => {
    const { url } = await empty()
    const { hostname, port, pathname } = new URL(url)
    const place = `the database ${pathname.slice(1)} on ${hostname}:${port}`
    const first = await startAssay({ ...secrets, DATABASE_URL: url })
    const told = () => logLines(first).filter(({ level }) => level >= 40)
    expect(told()).toEqual([
      expect.objectContaining({
        place,
        msg: expect.stringMatching(
          /^the database was empty, so a new installation was created: .* DATABASE_URL/,
        ),
      }),
    ])
    expect(first.stderr()).toBe('')
    await first.stop('SIGINT')

    const second = await startAssay({ ...secrets, DATABASE_URL: url })
    expect(logLines(second).filter(({ level }) => level >= 40)).toEqual([])
    await second.stop('SIGINT')
  })

  test('is a finding of `assay doctor`, before and after it is migrated', async () => {
    const { url } = await empty()
    const doctor = async () => {
      const { stdout } = await runCli({ ...secrets, DATABASE_URL: url }, ['doctor', '--json', '--offline'])
      return JSON.parse(stdout).filter(({ state }: { state: string }) => state !== 'ok')
    }
    const remedy = expect.stringContaining(
      'if there should be customers, point DATABASE_URL at their database',
    )
    expect(await doctor()).toEqual([
      {
        check: 'migrations',
        state: 'warning',
        found: expect.stringContaining('the database is empty'),
        remedy,
      },
    ])
    await runAssay({ ...secrets, DATABASE_URL: url }, ['migrate'])
    expect(await doctor()).toEqual([
      { check: 'installation', state: 'warning', found: expect.stringContaining('none yet'), remedy },
    ])
  })
})
