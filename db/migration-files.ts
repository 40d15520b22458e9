import type { Connection } from './client.ts'
import { readMigrationFiles } from './drizzle.ts'

/**
 * The migrations of this version in their order, as drizzle-kit wrote them. `folderMillis` is the time at which each was made.
 */
export const migrations = readMigrationFiles({ migrationsFolder: `${import.meta.dirname}/migrations` })

const LAST_MILLIS = migrations.at(-1)!.folderMillis

/** Returns when the database's last migration was made, in milliseconds since 1970, or 0 before the first one. */
export async function lastMigration(db: Pick<Connection, 'query'>): Promise<number> {
  const [row] = await db.query<{ at: number }>('select max(created_at)::float8 as at from assay.migrations')
  return row?.at ?? 0
}

/** True when the database has every migration that this version knows. Additional ones of a newer version do no harm. */
export const isMigrated = async (db: Pick<Connection, 'query'>) => (await lastMigration(db)) >= LAST_MILLIS

/** True when the database has migrations that this version doesn't know, because a newer version migrated it. */
export const isNewer = async (db: Pick<Connection, 'query'>) => (await lastMigration(db)) > LAST_MILLIS
