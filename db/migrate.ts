import { setTimeout as pause } from 'node:timers/promises'
import type { Connection } from './client.ts'
import { connected } from './connect.ts'
import { lastMigration, migrations } from './migration-files.ts'
import { TableLocks } from './migration-locks.ts'
import { makePartitions } from './queries/audit-partitions.ts'
import { assertEmpty, assertWhole, throwSchemaError } from './schema-check.ts'

/** The advisory lock number of Assay's migrations: 'assay' in ASCII. */
const LOCK_ID = 0x61_73_73_61_79

/** A migration may rewrite a table (ms). */
const MIGRATION_DEADLINE_MS = 3_600_000

/**
 * A migration waits at most this long for a table (ms), because later statements queue behind it, including the poll. If a
 * migration and another transaction wait for each other, the migration gives up before Postgres (deadlock_timeout) ends one of
 * them.
 */
const LOCK_TIMEOUT_MS = 200
/** The migration is retried after this pause (ms), in which queued statements run. MAX_ATTEMPTS includes the first attempt. */
const RETRY_DELAY_MS = 500
const MAX_ATTEMPTS = 20

/** Runs several statements at once inside one transaction and returns the rows of the last one. */
type Transaction = Pick<Connection, 'query'>

/**
 * Migrates a Postgres. It retries later if a table stays locked for so long that callers would notice, and throws
 * Unavailable after the last attempt. Returns how many migrations it applied.
 */
export async function migratePostgres(url: string): Promise<number> {
  const locks = new TableLocks()
  for (let tried = 1; ; tried++) {
    try {
      return await migrateAtOnce(url, locks)
    } catch (error) {
      if ((error as { detail?: string }).detail !== LOCK_NOT_AVAILABLE || tried === MAX_ATTEMPTS) throw error
      await pause(RETRY_DELAY_MS)
    }
  }
}

const LOCK_NOT_AVAILABLE = 'database: 55P03'

/**
 * Postgres checks once a second whether this process is still connected. Without this setting, a statement that waits for a lock
 * or builds an index continues after this process has ended, and keeps its locks. Postgres on Windows refuses the setting.
 */
const END_WITH_CLIENT = `
  select set_config(name, '1s', true) from pg_settings
    where name = 'client_connection_check_interval' and version() !~* 'windows|mingw|msvc|visual c'`

/**
 * Migrates under an advisory lock, in one transaction on its own connection, so that replicas that start
 * together take turns. A pooler keeps one connection for one transaction.
 */
function migrateAtOnce(url: string, locks: TableLocks): Promise<number> {
  return connected(url, MIGRATION_DEADLINE_MS, async connection => {
    await connection.query('begin')
    await connection.query('set local statement_timeout = 0')
    await connection.query(END_WITH_CLIENT)
    const applied = await migrate({ query: statement => connection.query(statement) }, locks)
    await connection.query('commit')
    return applied
  })
}

/**
 * Applies the migrations that are due. drizzle's own migrators can't do this: one has a fixed table name, the other begins
 * transactions itself, and both need the right to create schemas. Throws SchemaError if the schema isn't in a state that
 * migrations leave.
 */
export async function migrate(transaction: Transaction, locks = new TableLocks()): Promise<number> {
  return bringUpToDate(transaction, locks).catch(throwSchemaError)
}

async function bringUpToDate(transaction: Transaction, locks: TableLocks): Promise<number> {
  await transaction.query(`select pg_advisory_xact_lock(${LOCK_ID})`)
  await transaction.query(`set local lock_timeout = ${LOCK_TIMEOUT_MS}`)
  await transaction.query(MAKE_SCHEMA)
  const last = await lastMigration(transaction)
  if (last === 0) await assertEmpty(transaction)
  const due = migrations.filter(({ folderMillis }) => folderMillis > last)
  if (due.length > 0) await locks.take(transaction, due)
  for (const migration of due) await apply(transaction, migration)
  await assertWhole(transaction)
  await makePartitions(transaction)
  return due.length
}

/**
 * `create schema if not exists` requires the privilege to create schemas even if the schema exists. The migrating
 * role may own the schema without that privilege.
 */
const MAKE_SCHEMA = `
  do $$ begin
    if to_regnamespace('assay') is null then create schema assay; end if;
    create table if not exists assay.migrations
      (id serial primary key, hash text not null, created_at bigint not null);
  end $$`

async function apply(transaction: Transaction, { sql, hash, folderMillis }: (typeof migrations)[number]) {
  for (const statement of sql) await transaction.query(statement)
  await transaction.query(
    `insert into assay.migrations (hash, created_at) values ('${hash}', ${folderMillis})`,
  )
}
