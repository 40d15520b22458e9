import { drizzle, type PgRemoteDatabase } from 'drizzle-orm/pg-proxy'
import { openEmbedded } from './embedded.ts'
import { inspect } from './inspect.ts'
import { openPostgres } from './postgres.ts'
import * as schema from './schema.ts'

/** One statement, one round trip; rows as objects, or as arrays for drizzle. Throws Unavailable or DatabaseError. */
export interface Line {
  query<Row>(statement: string, params?: readonly unknown[]): Promise<Row[]>
  values(statement: string, params?: readonly unknown[]): Promise<unknown[][]>
  close(): Promise<void>
}

/** What a driver brings: both ours speak the same statements, so nothing above this file knows which it is. */
export interface Driver extends Line {
  readonly kind: 'postgres' | 'embedded'
  /** A connection of its own, destroyed when a call exceeds `deadline` (ms). */
  line(deadline: number): Line
  /** What was read came from a server that is no longer the primary: other connections are made. */
  renew(): void
  /** Calls under way, and how many connections they may share. */
  load(): { calls: number; connections: number }
}

export interface Database extends Driver {
  /** For statements that are built, not written. It has no transactions: an act is one statement. */
  readonly orm: PgRemoteDatabase<typeof schema>
}

/** A call that takes longer is answered 503, and what hung is replaced (ms). */
export const DEADLINE = 5_000

/** Opens Postgres by its URL, or the embedded database in a folder (`memory://` keeps nothing). */
export async function open(target: { url: string } | { folder: string }): Promise<Database> {
  const driver =
    'url' in target
      ? openPostgres(target.url, DEADLINE, (await inspect(target.url)).pooled)
      : await openEmbedded(target.folder, DEADLINE)
  const orm = drizzle(async (statement, params) => ({ rows: await driver.values(statement, params) }), {
    schema,
  })
  return Object.assign(driver, { orm })
}
