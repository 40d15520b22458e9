import { openPostgres } from './postgres.ts'
import { inspect } from './server-info.ts'

/** One statement, one round trip. Throws Unavailable or DatabaseError. */
export interface Line {
  query<Row>(statement: string, params?: readonly unknown[]): Promise<Row[]>
  /** The same, each row as its values in the order of the columns: two columns may share a name. */
  values(statement: string, params?: readonly unknown[]): Promise<unknown[][]>
  close(): Promise<void>
}

/** Both of ours speak the same statements, so nothing above this file knows which it is. */
export interface Database extends Line {
  readonly kind: 'postgres' | 'embedded'
  /** A connection of its own, destroyed when a call exceeds `deadline` (ms). */
  line(deadline: number): Line
  /** What was read came from a server that is no longer the primary: other connections are made. */
  renew(): void
  /** Calls under way, and how many connections they may share. */
  load(): { calls: number; connections: number }
}

/** A call that takes longer is answered 503, and what hung is replaced (ms). */
export const CALL_DEADLINE_MS = 5_000

/** Opens Postgres by its URL, or the embedded database in a folder (`memory://` keeps nothing), whose code is loaded only then. */
export async function open(target: { url: string } | { folder: string }): Promise<Database> {
  return 'url' in target
    ? openPostgres(target.url, CALL_DEADLINE_MS, (await inspect(target.url)).pooled)
    : (await import('./pglite.ts')).openEmbedded(target.folder, CALL_DEADLINE_MS)
}
