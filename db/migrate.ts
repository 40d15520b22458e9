import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { setTimeout as pause } from 'node:timers/promises'
import { MAKE_PARTITIONS } from './audit_partitions.ts'
import type { Database } from './client.ts'
import { connected } from './connection.ts'

interface Migration {
  statements: string[]
  hash: string
  /** Milliseconds since 1970. */
  madeAt: number
}

/** As drizzle-kit writes them. */
function readMigrations(folder: string): Migration[] {
  const journal = JSON.parse(readFileSync(`${folder}/meta/_journal.json`, 'utf8'))
  return journal.entries.map(({ tag, when }: { tag: string; when: number }) => {
    const text = readFileSync(`${folder}/${tag}.sql`, 'utf8')
    const hash = createHash('sha256').update(text).digest('hex')
    return { statements: text.split('--> statement-breakpoint'), hash, madeAt: when }
  })
}

const migrations = readMigrations(`${import.meta.dirname}/migrations`)

/** When this version's last one was made. */
const LATEST = migrations.at(-1)!.madeAt

/** The number that Assay's migrations lock, anywhere it shares a server: 'assay' in ASCII. */
const LOCK = 0x61_73_73_61_79

/** A migration may rewrite a table (ms). */
const LONGEST = 3_600_000

/**
 * How long a table is waited for (ms). Whoever comes next waits behind, the poll too; and of two that wait for each other,
 * the migration gives way before Postgres (deadlock_timeout) ends one of them.
 */
const LOCK_WAIT = 200
/** After which all are let through, and it is tried again (ms), so often. */
const PAUSE = 500
const TRIES = 20

type Execute = (statement: string) => Promise<Record<string, unknown>[]>

/**
 * Brings a Postgres up to date. Where a table can't be had for so long that callers would notice, it tries again later;
 * throws Unavailable where it can't be had at all. Answers how many migrations it applied.
 */
export async function migratePostgres(url: string): Promise<number> {
  for (let tried = 1; ; tried++) {
    try {
      return await migrateAtOnce(url)
    } catch (error) {
      if ((error as { code?: string }).code !== LOCK_NOT_AVAILABLE || tried === TRIES) throw error
      await pause(PAUSE)
    }
  }
}

const LOCK_NOT_AVAILABLE = '55P03'

/**
 * Under an advisory lock, in one transaction, on a connection of its own, which a pooler keeps for one transaction: replicas
 * that start together take turns.
 */
function migrateAtOnce(url: string): Promise<number> {
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
  await execute(`set local lock_timeout = ${LOCK_WAIT}`)
  await execute('create schema if not exists assay')
  await execute(
    'create table if not exists assay.migrations (id serial primary key, hash text not null, created_at bigint not null)',
  )
  const [last] = await execute('select max(created_at)::float8 as at from assay.migrations')
  const due = migrations.filter(({ madeAt }) => madeAt > Number(last?.at ?? 0))
  for (const migration of due) await apply(execute, migration)
  await execute(MAKE_PARTITIONS)
  return due.length
}

async function apply(execute: Execute, { statements, hash, madeAt }: Migration) {
  for (const statement of statements) await execute(statement)
  await execute(`insert into assay.migrations (hash, created_at) values ('${hash}', ${madeAt})`)
}

/** True when the database has every migration that this version knows; a newer version's more are no harm. */
export const isMigrated = async (db: Pick<Database, 'query'>) => (await lastMigration(db)) >= LATEST

/** True when it has migrations that this version doesn't know: a newer one brought it up to date. */
export const isNewer = async (db: Pick<Database, 'query'>) => (await lastMigration(db)) > LATEST

/** When it was made, in milliseconds since 1970; 0 if there is none. */
async function lastMigration(db: Pick<Database, 'query'>): Promise<number> {
  const [row] = await db.query<{ at: number }>('select max(created_at)::float8 as at from assay.migrations')
  return Number(row?.at ?? 0)
}
