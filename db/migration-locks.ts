import type { Connection } from './client.ts'
import type { migrations } from './migration-files.ts'

/**
 * Locks the tables that a migration changes, one by one, before its first statement runs. A statement of a server also locks
 * several tables, in its own order. If it holds a table that the migration needs, and waits for one that the migration
 * holds, the migration gives up after lock_timeout. With a fixed order, this happened at every attempt while
 * clients sent requests (test/postgres/upgrades.test.ts). The next attempt therefore begins with the table that it failed
 * to lock: the servers' statements then wait for that table, and don't yet hold the tables that come later in their order.
 */
export class TableLocks {
  /** The tables that earlier attempts failed to lock, the last one first. */
  #contested: string[] = []

  /** Locks the tables that exist already, in the mode that ALTER TABLE needs anyway. */
  async take({ query }: Pick<Connection, 'query'>, due: typeof migrations) {
    const changed = new Set(due.flatMap(({ sql }) => sql.flatMap(changedTables)))
    const there = await query<{ name: string }>(TABLES)
    const tables = there.map(({ name }) => name).filter(name => changed.has(name))
    const first = this.#contested.filter(name => tables.includes(name))
    for (const table of new Set([...first, ...tables])) await this.#lock(query, table)
  }

  async #lock(query: Connection['query'], table: string) {
    try {
      await query(`lock table assay."${table}" in access exclusive mode`)
    } catch (error) {
      this.#contested = [table, ...this.#contested.filter(other => other !== table)]
      throw error
    }
  }
}

const TABLES = `select relname::text as name from pg_class
  where relnamespace = 'assay'::regnamespace and relkind in ('r', 'p') order by 1`

const changedTables = (sql: string) =>
  [...sql.matchAll(/^\s*(?:alter|drop) table (?:if exists )?"?assay"?\."?(\w+)/gim)].map(([, name]) => name!)
