import type { Target } from './connection-url.ts'
import { openPostgres } from './postgres.ts'
import { inspect, type Server } from './server-info.ts'

/** Runs one statement per call, in one round trip. Throws Unavailable or DatabaseError. */
export interface Connection {
  query<Row>(statement: string, params?: readonly unknown[]): Promise<Row[]>
  /** Like `query`, but each row is an array of its values in the order of the columns, so two columns may share a name. */
  values(statement: string, params?: readonly unknown[]): Promise<unknown[][]>
  close(): Promise<void>
}

/** Postgres and PGlite run the same statements, so nothing above this file knows which of them it uses. */
export interface Database extends Connection {
  readonly kind: 'postgres' | 'embedded'
  /** Opens a separate connection, which is replaced when a call exceeds `deadline` (ms). */
  connection(deadline: number): Connection
  /** Replaces all connections, because one of them led to a server that is no longer the primary. */
  reconnect(): void
  /** The number of running calls, and of connections that they may share. */
  usage(): { calls: number; connections: number }
}

/** A call that takes longer is answered 503, and the connections are replaced (ms). */
export const CALL_DEADLINE_MS = 5_000

/**
 * Opens Postgres by its URL, or the embedded database in a folder (`memory://` keeps nothing). The code of the embedded database
 * is loaded only if it is used. `server` is the result of `inspect` for the URL, if known. `reread` is called when a login is
 * refused.
 */
export async function open(
  target: { url: string; server?: Server; reread?: Target['reread'] } | { folder: string },
): Promise<Database> {
  if ('folder' in target) return (await import('./pglite.ts')).openEmbedded(target.folder, CALL_DEADLINE_MS)
  const { pooled } = target.server ?? (await inspect(target.url, target.reread))
  return openPostgres(target.url, CALL_DEADLINE_MS, pooled, target.reread)
}
