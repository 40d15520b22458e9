import { readFileSync } from 'node:fs'
import { join } from 'node:path'

export const MIGRATIONS_FOLDER = join(import.meta.dirname, '../../db/migrations')

export interface Migration {
  idx: number
  tag: string
  /** When the migration was created, in milliseconds since 1970. */
  when: number
  text: string
}

/** The migrations in the order in which drizzle-kit wrote them. */
export const MIGRATIONS: Migration[] = JSON.parse(
  readFileSync(join(MIGRATIONS_FOLDER, 'meta/_journal.json'), 'utf8'),
).entries.map((entry: Omit<Migration, 'text'>) => ({
  ...entry,
  text: readFileSync(join(MIGRATIONS_FOLDER, `${entry.tag}.sql`), 'utf8'),
}))
