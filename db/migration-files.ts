import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import type { Connection } from './client.ts'

export interface Migration {
  statements: string[]
  hash: string
  /** Milliseconds since 1970. */
  madeAt: number
}

/** What drizzle-kit noted of the schema, with a migration. */
export interface Snapshot {
  tables: Record<string, TableSnapshot>
  sequences: Record<string, { name: string }>
}

export interface TableSnapshot {
  name: string
  columns: Record<string, { primaryKey: boolean }>
  indexes: Record<string, unknown>
  compositePrimaryKeys: Record<string, unknown>
  uniqueConstraints: Record<string, unknown>
}

const FOLDER = `${import.meta.dirname}/migrations`
const readJson = (file: string) => JSON.parse(readFileSync(`${FOLDER}/meta/${file}`, 'utf8'))

/** As drizzle-kit writes it. */
const entries: { idx: number; tag: string; when: number }[] = readJson('_journal.json').entries

/** This version's, in their order. */
export const migrations = entries.map(({ tag, when }): Migration => {
  const text = readFileSync(`${FOLDER}/${tag}.sql`, 'utf8')
  const hash = createHash('sha256').update(text).digest('hex')
  return { statements: text.split('--> statement-breakpoint'), hash, madeAt: when }
})

const last = entries.at(-1)!

/** The schema that they make. */
export const snapshot: Snapshot = readJson(`${String(last.idx).padStart(4, '0')}_snapshot.json`)

/** When the last one that was applied there was made, in milliseconds since 1970; 0 if there is none. */
export async function lastMigration(db: Pick<Connection, 'query'>): Promise<number> {
  const [row] = await db.query<{ at: number }>('select max(created_at)::float8 as at from assay.migrations')
  return row?.at ?? 0
}

/** True when the database has every migration that this version knows; a newer version's more are no harm. */
export const isMigrated = async (db: Pick<Connection, 'query'>) => (await lastMigration(db)) >= last.when

/** True when it has migrations that this version doesn't know: a newer one brought it up to date. */
export const isNewer = async (db: Pick<Connection, 'query'>) => (await lastMigration(db)) > last.when
