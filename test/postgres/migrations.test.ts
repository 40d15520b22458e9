import { execFile } from 'node:child_process'
import { cp, mkdtemp, readdir, rm, symlink } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import postgres from 'postgres'
import { expect, inject, onTestFinished, test } from 'vitest'
import { open } from '../../db/client.ts'
import { migratePostgres } from '../../db/migrate.ts'
import { isMigrated } from '../../db/migration-files.ts'
import { control, createEmptyDatabase } from '../support/database.ts'
import { MIGRATIONS } from '../support/migrations.ts'

const run = promisify(execFile)
const ROOT = join(import.meta.dirname, '../..')

async function emptyDatabase() {
  const { migrateUrl: url, drop } = await createEmptyDatabase(inject('databaseUrl'))
  const sql = control(url)
  onTestFinished(async () => {
    await sql.end()
    await drop()
  })
  return { url, sql }
}

const migrations = (await readdir(join(ROOT, 'db/migrations'))).filter(file => file.endsWith('.sql'))

/** All objects that a user could have in a database, outside the system schemas. */
const OBJECTS = `
  select n.nspname as schema, c.relname as name, c.relkind::text as kind
  from pg_class c join pg_namespace n on n.oid = c.relnamespace
  where n.nspname not like 'pg\\_%' and n.nspname <> 'information_schema'
  union all select n.nspname, p.proname, 'function' from pg_proc p join pg_namespace n on n.oid = p.pronamespace
  where n.nspname not like 'pg\\_%' and n.nspname <> 'information_schema'
  union all select n.nspname, t.typname, 'type' from pg_type t join pg_namespace n on n.oid = t.typnamespace
  where n.nspname not like 'pg\\_%' and n.nspname <> 'information_schema'
  union all select extname, extname, 'extension' from pg_extension
  union all select nspname, nspname, 'schema' from pg_namespace
  order by 1, 2, 3`

// Without the partitions: whether their columns are listed as identities depends on the version.
const COLUMNS = `
  select table_name, column_name, data_type, is_nullable, column_default, is_identity
  from information_schema.columns where table_schema = 'assay' and table_name !~ '^audit_events_'
  order by 1, ordinal_position`

// Without NOT NULL, which Postgres 18 lists here too; the column list has it.
const CONSTRAINTS = `
  select conrelid::regclass::text as table, conname, pg_get_constraintdef(oid) as definition from pg_constraint
  where connamespace = 'assay'::regnamespace and contype <> 'n' order by 1, 2`

const INDEXES = `select indexname, indexdef from pg_indexes where schemaname = 'assay' order by 1`

test('an empty database is migrated, and migrating again changes nothing', async () => {
  const { url, sql } = await emptyDatabase()
  expect(await migratePostgres(url)).toBe(migrations.length)
  const before = await sql.unsafe(`${COLUMNS}`)
  expect(await migratePostgres(url)).toBe(0)
  expect([...(await sql.unsafe(`${COLUMNS}`))]).toEqual([...before])
  expect(await sql`select hash from assay.migrations`).toHaveLength(migrations.length)
})

test('concurrent migrations take turns', async () => {
  const { url, sql } = await emptyDatabase()
  const applied = await Promise.all(Array.from({ length: 4 }, () => migratePostgres(url)))
  expect(applied.sort()).toEqual([0, 0, 0, migrations.length])
  expect(await sql`select hash from assay.migrations`).toHaveLength(migrations.length)
})

test('a database without migrations is not treated as current', async () => {
  const { url, sql } = await emptyDatabase()
  await migratePostgres(url)
  const db = await open({ url })
  expect(await isMigrated(db)).toBe(true)
  await sql`delete from assay.migrations where created_at = (select max(created_at) from assay.migrations)`
  expect(await isMigrated(db)).toBe(false)
  await db.close()
})

test('a migration that fails leaves nothing behind', async () => {
  const { url } = await emptyDatabase()
  const sql = postgres(url, { max: 1, onnotice: () => {} })
  onTestFinished(() => sql.end())
  const [first] = MIGRATIONS
  await sql`create table assay.migrations (id serial primary key, hash text not null, created_at bigint not null)`
  await sql`insert into assay.migrations (hash, created_at) values ('first', ${first!.when})`
  await sql.unsafe(first!.text)
  // The second statement fails after other tables were created.
  await sql`create table assay.sessions (mine text)`
  await expect(migratePostgres(url)).rejects.toMatchObject({ found: expect.stringContaining('42P07') })
  const left =
    await sql`select relname from pg_class where relnamespace = 'assay'::regnamespace and relkind = 'r' order by 1`
  expect(left.map(({ relname }) => relname)).toEqual(['migrations', 'sessions'])
})

test('all objects are in the schema assay, beside an application’s own tables', async () => {
  const { url, sql } = await emptyDatabase()
  await sql`create table public.customers (id int)`
  const outside = async () => (await sql.unsafe(OBJECTS)).filter(({ schema }) => schema !== 'assay')
  const before = await outside()
  await migratePostgres(url)
  expect(await outside()).toEqual(before)
  const inside = (await sql.unsafe(OBJECTS)).filter(({ schema }) => schema === 'assay')
  expect(inside.map(({ name }) => name)).toEqual(
    expect.arrayContaining([
      'migrations',
      'now',
      'epochs',
      'change_feed',
      'customers',
      'audit_events_default',
    ]),
  )
})

test('npm run migrate migrates a database and ends', async () => {
  const { url, sql } = await emptyDatabase()
  const env = {
    PATH: process.env.PATH,
    HOME: process.env.HOME,
    DATABASE_URL: url,
    MASTER_KEYS: `m1:${Buffer.alloc(32, 'a master key of a test').toString('base64')}`,
    ADMIN_TOKEN: 'operator-Qm8sVx2Lk9Tz4Wb7Rf1Yc6Hn3Jd5',
  }
  await run('npm', ['run', 'migrate'], { cwd: ROOT, env })
  await run('npm', ['run', 'migrate'], { cwd: ROOT, env })
  expect(await sql`select hash from assay.migrations`).toHaveLength(migrations.length)
})

test('the migrations and the schema in TypeScript are equal', async () => {
  const copy = await mkdtemp(join(tmpdir(), 'assay-schema-'))
  onTestFinished(() => rm(copy, { recursive: true }))
  for (const part of ['db', 'drizzle.config.ts', 'package.json', 'tsconfig.json'])
    await cp(join(ROOT, part), join(copy, part), { recursive: true })
  await symlink(join(ROOT, 'node_modules'), join(copy, 'node_modules'))
  const kit = join(copy, 'node_modules/.bin/drizzle-kit')
  const checked = await run(kit, ['check'], { cwd: copy })
  expect(checked.stdout).toContain("Everything's fine")
  const generated = await run(kit, ['generate'], { cwd: copy })
  expect(generated.stdout).toContain('No schema changes')
  expect((await readdir(join(copy, 'db/migrations'))).filter(file => file.endsWith('.sql'))).toEqual(
    migrations,
  )
})

test('the embedded database and Postgres have the same columns, constraints and indexes', async () => {
  const { url, sql } = await emptyDatabase()
  await migratePostgres(url)
  const embedded = await open({ folder: 'memory://' })
  onTestFinished(() => embedded.close())
  // Names are shown without their schema if it is on the search path, as `assay` is for a user called assay.
  const onPostgres = (query: string) =>
    sql.begin(async transaction => {
      await transaction`set local search_path = pg_catalog`
      return [...(await transaction.unsafe(query))]
    })
  for (const query of [COLUMNS, CONSTRAINTS, INDEXES])
    expect(await embedded.query<object>(query)).toEqual(await onPostgres(query))
})
