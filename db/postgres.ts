import pg from 'pg'
import { Unavailable } from '../server/lib/errors.ts'
import type { Database, Line } from './client.ts'
import { within } from './deadline.ts'
import { translate } from './errors.ts'
import { connectionTo, lost, PgConnection } from './pg-connection.ts'
import { statementName } from './prepared.ts'
import { sessionSettings } from './server-info.ts'

const POOL_SIZE = 10
/** A connection that nobody wants for so long is ended (ms). */
const IDLE_TIMEOUT_MS = 60_000
/** A pool is young for so long (ms). */
const POOL_MIN_AGE_MS = 200

/**
 * A pool of connections for all calls and one of one for each line. `pooled`: a pooler stands between, which lends
 * another connection of its own to each statement.
 */
export function openPostgres(url: string, deadline: number, pooled: boolean): Database {
  const open = (connections: number, limit: number) => makePool({ url, connections, deadline: limit, pooled })
  return Object.assign(open(POOL_SIZE, deadline), {
    kind: 'postgres' as const,
    line: (limit: number) => open(1, limit),
  })
}

interface PoolOptions {
  url: string
  connections: number
  /** Milliseconds. */
  deadline: number
  pooled: boolean
}

/** A pool of the driver's, and the calls that it has still to answer. */
interface PoolInstance {
  pool: pg.Pool
  calls: Set<Promise<unknown>>
  /** Made a moment ago: another would meet the same server. */
  young: boolean
}

function makePool(options: PoolOptions): Line & Pick<Database, 'load' | 'renew'> {
  const { url, deadline, pooled, connections } = options
  // Once: what throws here would throw, later, where nobody catches it.
  const config = connectionTo(url, pooled ? {} : sessionSettings(deadline))
  let current = makeInstance(config, options)
  let calls = 0
  let closed: Promise<void> | undefined

  function replace(failed: PoolInstance) {
    if (failed !== current || closed) return
    current = makeInstance(config, options)
    void retire(failed)
  }

  async function call<Row>(query: pg.QueryConfig | pg.QueryArrayConfig): Promise<Row[]> {
    const used = current
    const turn: Checkout = { connection: undefined }
    const outcome = within(deadline, run(used.pool, query, turn), () => {
      turn.connection?.cut()
      replace(used)
    })
    used.calls.add(outcome)
    calls++
    try {
      return (await outcome) as Row[]
    } catch (error) {
      if (isLost((error as { code?: unknown }).code, used)) replace(used)
      throw translate(error)
    } finally {
      calls--
      used.calls.delete(outcome)
    }
  }

  // One round trip either way. Without a name it is parsed each time, but needs nothing that an earlier one left behind.
  const named = (text: string) => {
    const name = pooled ? undefined : statementName(text)
    return name === undefined ? { text } : { name: `assay_${name}_${text.length}`, text }
  }

  return {
    query: (statement, params = []) => call({ ...named(statement), values: [...params] }),
    values: (statement, params = []) =>
      call<unknown[]>({ ...named(statement), values: [...params], rowMode: 'array' }),
    renew: () => current.young || replace(current),
    load: () => ({ calls, connections }),
    close: () => {
      closed ??= current.pool.end()
      return closed
    },
  }
}

/** What a call has of the pool, once it is its turn. */
interface Checkout {
  connection: PgConnection | undefined
}

/** A connection on which anything failed is not used again, unless the server only refused the statement. */
async function run(
  pool: pg.Pool,
  query: pg.QueryConfig | pg.QueryArrayConfig,
  turn: Checkout,
): Promise<unknown[]> {
  const connection = await pool.connect().catch(error => {
    throw lost(error)
  })
  turn.connection = connection as PgConnection & pg.PoolClient
  try {
    const { rows } = await connection.query(query)
    connection.release()
    return rows
  } catch (thrown) {
    const error = lost(thrown)
    connection.release(!(error instanceof pg.DatabaseError) || translate(error) instanceof Unavailable)
    throw error
  }
}

/** One to a server that only reads (25006) is to the wrong server since a failover. */
const isLost = (code: unknown, { young }: PoolInstance) => code === '25006' && !young

/**
 * New calls go to the next generation; this one's are answered, each by its deadline, before it ends: calls that wait in a
 * pool that is ended are never served.
 */
async function retire({ pool, calls }: PoolInstance) {
  await Promise.allSettled(calls)
  await pool.end()
}

function makeInstance(config: pg.ClientConfig, { connections, deadline }: PoolOptions): PoolInstance {
  const pool = new pg.Pool({
    ...config,
    Client: PgConnection,
    max: connections,
    idleTimeoutMillis: IDLE_TIMEOUT_MS,
    // For a turn; what waits longer has been answered.
    connectionTimeoutMillis: deadline,
  })
  pool.on('error', () => {}) // An idle connection broke, and is out of the pool.
  const made = { pool, calls: new Set<Promise<unknown>>(), young: true }
  setTimeout(() => {
    made.young = false
  }, POOL_MIN_AGE_MS).unref()
  return made
}
