import { readMigrationFiles } from 'drizzle-orm/migrator'
import { MAKE_PARTITIONS } from './audit.ts'
import type { Database } from './client.ts'
import { connected } from './connection.ts'

const files = readMigrationFiles({ migrationsFolder: `${import.meta.dirname}/migrations` })

/** The number that Assay's migrations lock, anywhere it shares a server: 'assay' in ASCII. */
const LOCK = 0x61_73_73_61_79

/** A migration may rewrite a table (ms). */
const LONGEST = 3_600_000

type Execute = (statement: string) => Promise<Record<string, unknown>[]>

/**
 * Brings a Postgres up to date, under an advisory lock, in one transaction, on a connection of its own, which a
 * pooler keeps for one transaction: replicas that start together take turns. Answers how many migrations it applied.
 */
export function migratePostgres(url: string): Promise<number> {
  return connected(url, LONGEST, async connection => {
    await connection.query('begin')
    await connection.query('set local statement_timeout = 0')
    const applied = await migrate(async statement => {
      // Of several statements at once the driver answers a list.
      const results = [await connection.query(statement)].flat()
      return results.at(-1)!.rows
    })
    await connection.query('commit')
    return applied
  })
}

/** Inside one transaction, whose statements `execute` runs: several at once, answering the last one's rows. */
export async function migrate(execute: Execute): Promise<number> {
  await execute(`select pg_advisory_xact_lock(${LOCK})`)
  await execute('create schema if not exists assay')
  await execute(
    'create table if not exists assay.migrations (id serial primary key, hash text not null, created_at bigint not null)',
  )
  const [last] = await execute('select max(created_at)::float8 as at from assay.migrations')
  const due = files.filter(file => file.folderMillis > Number(last?.at ?? 0))
  for (const file of due) await apply(execute, file)
  await execute(MAKE_PARTITIONS)
  return due.length
}

async function apply(execute: Execute, file: (typeof files)[number]) {
  for (const statement of file.sql) await execute(statement)
  await execute(
    `insert into assay.migrations (hash, created_at) values ('${file.hash}', ${file.folderMillis})`,
  )
}

/** True when the database has every migration that this version knows; a newer version's more are no harm. */
export async function isMigrated(db: Pick<Database, 'query'>): Promise<boolean> {
  const [row] = await db.query<{ at: number }>('select max(created_at)::float8 as at from assay.migrations')
  return Number(row?.at ?? 0) >= (files.at(-1)?.folderMillis ?? 0)
}
