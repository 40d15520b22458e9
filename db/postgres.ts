import postgres from 'postgres'
import type { Driver, Line } from './client.ts'
import { within } from './deadline.ts'
import { isLinkFailure, translate } from './failures.ts'

const POOL = 10
const INT8 = 20

/**
 * postgres.js without its `begin` and `reserve`: when a backend dies while a connection is reserved, 3.4.9 throws outside
 * every promise and ends the process (porsager/postgres#1208). It can't drop one connection either, so that a pool whose
 * link failed or fell silent is replaced whole: new calls go to a new pool, what is under way on the old one may finish.
 */
export function openPostgres(url: string, deadline: number): Driver {
  return Object.assign(pool(url, POOL, deadline), {
    kind: 'postgres' as const,
    line: (lineDeadline: number) => pool(url, 1, lineDeadline),
  })
}

function pool(url: string, connections: number, deadline: number): Line & Pick<Driver, 'load'> {
  let sql = connect(url, connections, deadline)
  let young = false
  let calls = 0

  function replace(failed: postgres.Sql) {
    // Not the pool that failed, or one so young that the database is simply away: it reconnects by itself.
    if (failed !== sql || young) return
    young = true
    setTimeout(() => {
      young = false
    }, RECONNECT).unref()
    sql = connect(url, connections, deadline)
    void failed.end({ timeout: connections === 1 ? 0 : deadline / 1000 }).catch(() => {})
  }

  async function call<Result>(run: (sql: postgres.Sql) => Promise<Result>): Promise<Result> {
    const used = sql
    calls++
    try {
      return await within(deadline, run(used), () => replace(used))
    } catch (error) {
      if (isLinkFailure(error)) replace(used)
      throw translate(error)
    } finally {
      calls--
    }
  }

  return {
    query: (statement, params = []) => call(async sql => rowsOf(await prepared(sql, statement, params))),
    values: (statement, params = []) =>
      call(async sql => rowsOf(await prepared(sql, statement, params).values())),
    load: () => ({ calls, connections }),
    close: () => sql.end({ timeout: 1 }),
  }
}

/** Milliseconds between two tries to connect, without a growing back-off: the database's return is felt at once. */
const RECONNECT = 200

// Named statements: one round trip instead of two. An empty parameter list would choose the simple protocol.
const prepared = (sql: postgres.Sql, statement: string, params: readonly unknown[]) =>
  sql.unsafe(
    statement,
    params as postgres.ParameterOrJSON<never>[],
    { prepare: true, simple: false } as object,
  )

/** A plain array: the driver's own has the statement and the connection hanging from it. */
const rowsOf = <Row>(result: Iterable<unknown>) => Array.from(result) as Row[]

function connect(url: string, connections: number, deadline: number) {
  return postgres(url, {
    max: connections,
    connect_timeout: 2,
    // @ts-expect-error: seconds, as a number or a function; the types know only the function's older form.
    backoff: RECONNECT / 1000,
    fetch_types: false,
    onnotice: () => {},
    types: { int8: { to: INT8, from: [INT8], serialize: String, parse: Number } },
    connection: {
      application_name: 'assay',
      synchronous_commit: 'on',
      // A little before our own deadline, so that a statement that waits for a lock ends there too.
      statement_timeout: Math.floor(deadline * 0.9),
    },
  })
}
