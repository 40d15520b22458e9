import postgres from 'postgres'
import { Unavailable } from '../server/errors.ts'
import type { Driver, Line } from './client.ts'
import { within } from './deadline.ts'
import { translate } from './failures.ts'

const POOL = 10
const INT8 = 20

/**
 * postgres.js without its `begin` and `reserve`: when a backend dies while a connection is reserved, 3.4.9 throws outside
 * every promise and ends the process (porsager/postgres#1208). It can't drop one connection either, so that a pool whose
 * link fell silent is replaced whole: new calls go to a new pool, what is under way on the old one may finish.
 */
export function openPostgres(url: string, deadline: number): Driver {
  return Object.assign(pool(url, POOL, deadline), {
    kind: 'postgres' as const,
    line: (lineDeadline: number) => pool(url, 1, lineDeadline),
  })
}

/** A pool of the driver's, and the calls that it has still to answer. */
interface Generation {
  sql: postgres.Sql
  calls: Set<Promise<unknown>>
  /** Made a moment ago: another would meet the same server. */
  young: boolean
}

function pool(url: string, connections: number, deadline: number): Line & Pick<Driver, 'load'> {
  function next(): Generation {
    const made = { sql: connect(url, connections, deadline), calls: new Set<Promise<unknown>>(), young: true }
    setTimeout(() => {
      made.young = false
    }, RECONNECT).unref()
    return made
  }

  let current = next()
  let calls = 0
  let closed = false

  function replace(failed: Generation) {
    if (failed !== current || closed) return
    current = next()
    void retire(failed)
  }

  async function call<Result>(run: (sql: postgres.Sql) => Promise<Result>): Promise<Result> {
    const used = current
    const outcome = within(deadline, run(used.sql), () => replace(used))
    used.calls.add(outcome)
    calls++
    try {
      return await outcome
    } catch (error) {
      if (isLost((error as { code?: unknown }).code, used)) replace(used)
      throw translate(error)
    } finally {
      calls--
      used.calls.delete(outcome)
    }
  }

  return {
    query: (statement, params = []) => call(async sql => rowsOf(await prepared(sql, statement, params))),
    values: (statement, params = []) =>
      call(async sql => rowsOf(await prepared(sql, statement, params).values())),
    load: () => ({ calls, connections }),
    close: () => {
      closed = true
      return current.sql.end({ timeout: 1 })
    },
  }
}

/**
 * A link that broke the driver mends by itself. One that can't connect in time may never come right again, and one to a
 * server that only reads (25006) is to the wrong server since a failover.
 */
const isLost = (code: unknown, { young }: Generation) =>
  code === 'CONNECT_TIMEOUT' || (code === '25006' && !young)

/** Ended once its calls are answered, each by its deadline: an end beside waiting calls reopens what nobody ends. */
async function retire({ sql, calls }: Generation) {
  await Promise.allSettled(calls)
  await sql.end({ timeout: 0 }).catch(() => {})
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

/**
 * A plain array: the driver's own has the statement and the connection hanging from it. Only of an answer that the server
 * completed: a call that the driver writes to a connection just reset it answers, once connected anew, with no rows, as
 * though nothing had been there.
 */
function rowsOf<Row>(result: Iterable<unknown> & { command: unknown }): Row[] {
  if (!result.command) throw new Unavailable('database: the link was lost before the answer')
  return Array.from(result) as Row[]
}

function connect(url: string, connections: number, deadline: number) {
  return postgres(url, {
    max: connections,
    connect_timeout: 2,
    // The net under a connection that the driver opened and forgot (s).
    idle_timeout: 60,
    // One call at a time on a connection: behind a slow one nobody waits who could have another.
    max_pipeline: 0,
    // @ts-expect-error: seconds, as a number or a function; the types know only the function's older form.
    backoff: RECONNECT / 1000,
    fetch_types: false,
    onnotice: () => {},
    types: { int8: { to: INT8, from: [INT8], serialize: String, parse: Number } },
    connection: {
      application_name: 'assay',
      synchronous_commit: 'on',
      // What each act is written for: it sees what was committed while it waited for a row.
      default_transaction_isolation: 'read committed',
      // A little before our own deadline, so that a statement that waits for a lock ends there too.
      statement_timeout: Math.floor(deadline * 0.9),
    },
  })
}
