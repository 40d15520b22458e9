import { PGlite, types } from '@electric-sql/pglite'
import type { Driver, Line } from './client.ts'
import { within } from './deadline.ts'
import { translate } from './failures.ts'
import { migrate } from './migrate.ts'

/**
 * Postgres inside this process, brought up to date. It has one connection and no directory lock of its own
 * (server/lock.ts has), and it runs with fsync off: it survives the process's death, not the machine's.
 */
export async function openEmbedded(folder: string, deadline: number): Promise<Driver> {
  const pglite = await PGlite.create(folder, { parsers: { [types.INT8]: Number } })
  // Only the transaction's handle in here: the one connection would wait for itself for ever.
  await pglite.transaction(transaction =>
    migrate(async statement => (await transaction.exec(statement)).at(-1)?.rows ?? []),
  )
  const line = (lineDeadline: number) => ({ ...calls(pglite, lineDeadline), close: async () => {} })
  return { ...calls(pglite, deadline), kind: 'embedded', line }
}

function calls(pglite: PGlite, deadline: number): Line & Pick<Driver, 'load'> {
  let calls = 0

  async function call<Row>(statement: string, params: readonly unknown[], rowMode: 'array' | 'object') {
    calls++
    try {
      const { rows } = await within(deadline, pglite.query(statement, [...params], { rowMode }), () => {})
      return rows as Row[]
    } catch (error) {
      throw pglite.closed ? translate({ code: 'CONNECTION_CLOSED' }) : translate(error)
    } finally {
      calls--
    }
  }

  return {
    query: (statement, params = []) => call(statement, params, 'object'),
    values: (statement, params = []) => call(statement, params, 'array'),
    load: () => ({ calls, connections: 1 }),
    close: () => pglite.close(),
  }
}
