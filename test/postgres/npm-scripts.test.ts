import type postgres from 'postgres'
import { afterAll, afterEach, beforeAll, expect, inject, test } from 'vitest'
import { control, createEmptyDatabase, direct } from '../support/database.ts'
import { killAll, npm } from '../support/npm.ts'
import { expectDrain, startByNpm } from '../support/npm-start.ts'
import { until } from '../support/process.ts'
import { copyDatabase } from '../support/templates.ts'

/** How the scripts of package.json end when npm gets a signal, on Postgres. */

/** Advisory lock of a migration (db/migrate.ts). */
const LOCK = 0x61_73_73_61_79

let database: Awaited<ReturnType<typeof copyDatabase>>
let sql: postgres.Sql

const settings = () => ({
  DATABASE_URL: database.url,
  DIRECT_DATABASE_URL: direct(database.url),
  MASTER_KEYS: 'm1:MS9JEcHX0lMwCGb7Zc3vdZNnEtw5jkEfq+xPBULSIXk=',
  ADMIN_TOKEN: 'operator-Qm8sVx2Lk9Tz4Wb7Rf1Yc6Hn3Jd5',
})

beforeAll(async () => {
  database = await copyDatabase()
  sql = control(database.url)
})
afterEach(killAll)
afterAll(async () => {
  await sql.end()
  await database.drop()
})

const migrationsThatWait = async (holder: postgres.Sql) => {
  const rows = await holder`
    select 1 from pg_stat_activity where datname = current_database() and wait_event = 'advisory'`
  return rows.length
}

test.each(['1', '2'])('a signal to npm start drains WORKERS=%s', async WORKERS => {
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    const server = await startByNpm(['start'], { ...settings(), WORKERS, LOG_LEVEL: 'info' })
    if (WORKERS === '1') await expectDrain(server, signal, () => server.kill(signal))
    else {
      server.kill(signal)
      expect(await server.exited).toBe(0)
      // Lines of the primary and of each worker.
      expect(server.output().match(/"msg":"ended"/g)).toHaveLength(3)
    }
    expect(await sql`select id from assay.replicas`).toHaveLength(0)
  }
})

test.each([
  ['SIGTERM', 'sh'],
  ['SIGINT', 'bash'],
] as const)('%s to npm run migrate ends a wait for another migration, with %s', async (signal, shell) => {
  const { migrateUrl, drop } = await createEmptyDatabase(inject('databaseUrl'))
  const holder = control(migrateUrl)
  await holder`select pg_advisory_lock(${LOCK})`
  const own = { DATABASE_URL: migrateUrl, npm_config_script_shell: shell }
  const migration = npm(['run', 'migrate'], own)
  await until('it waits', async () => (await migrationsThatWait(holder)) === 1)
  migration.kill(signal)
  expect(await migration.exited).toBe(signal === 'SIGTERM' ? 143 : 130)
  await until('its backend has ended', async () => (await migrationsThatWait(holder)) === 0, 5_000)
  await holder.end()
  await drop()
})
