import pg from 'pg'
import { Unavailable } from '../server/errors.ts'

/** How long a connection may take to be made (ms). */
const CONNECT_DEADLINE = 2_000
/** How long one that is ended may take to say goodbye (ms): a link that fell silent never does. */
const FAREWELL = 1_000
/** Until the system asks whether a silent link still lives (ms). */
const KEEP_ALIVE = 10_000

/** What acknowledged means; and what each act is written for: it sees what was committed while it waited for a row. */
export const NEEDED = { synchronous_commit: 'on', default_transaction_isolation: 'read committed' }

/** One connection to Postgres, ended for good whatever became of its link. */
export class Connection extends pg.Client {
  constructor(config: pg.ClientConfig = {}) {
    super({ ...config, connectionTimeoutMillis: CONNECT_DEADLINE })
    // Without a listener an error of an idle link ends the process. The calls under way are told by themselves.
    this.on('error', () => {})
  }

  // The pool calls it with a callback, others await it.
  override end(done?: (error: Error) => void): Promise<void> {
    setTimeout(() => this.cut(), FAREWELL).unref()
    return done === undefined ? super.end() : (super.end(done) as never)
  }

  /** At once. Whoever waits for an answer is told. */
  cut() {
    this.connection.stream.destroy()
  }
}

const types = new pg.TypeOverrides()
types.setTypeParser(pg.types.builtins.INT8, Number)

/**
 * What every connection has in common. `settings` are the server's, for the session: they go with the connection's first
 * message, which a pooler refuses.
 */
export function connectionTo(url: string, settings: Record<string, string> = {}): pg.ClientConfig {
  return {
    connectionString: withSettings(url, settings),
    application_name: 'assay',
    keepAlive: true,
    keepAliveInitialDelayMillis: KEEP_ALIVE,
    types,
  }
}

/** Ours come last and win. */
function withSettings(url: string, settings: Record<string, string>): string {
  const target = new URL(url)
  const { searchParams } = target
  // As libpq reads it: `require` encrypts, `verify-full` checks whom it speaks to as well.
  if (searchParams.has('sslmode')) searchParams.set('uselibpqcompat', 'true')
  const own = Object.entries(settings).map(([name, value]) => `-c ${name}=${value.replaceAll(' ', '\\ ')}`)
  const options = [searchParams.get('options'), ...own].filter(Boolean).join(' ')
  if (options !== '') searchParams.set('options', options)
  return target.href
}

/** Runs `use` on a connection of its own, which it ends. Throws Unavailable when there is none. */
export async function connected<Result>(
  url: string,
  use: (connection: Connection) => Promise<Result>,
): Promise<Result> {
  const connection = new Connection(connectionTo(url))
  try {
    await connection.connect()
    return await use(connection)
  } catch (error) {
    throw lost(error)
  } finally {
    await connection.end()
  }
}

/**
 * What pg throws, told apart: what the server refused and what is a bug stays as it is; everything else is the link's
 * failure, by the system's code or, where pg has only words, by those.
 */
export function lost(error: unknown): unknown {
  if (error instanceof pg.DatabaseError || error instanceof TypeError || error instanceof Unavailable)
    return error
  const { code, message } = error as NodeJS.ErrnoException
  return new Unavailable(`database: ${code ?? WORDS[message] ?? message}`, 'database')
}

const WORDS: Record<string, string> = {
  'timeout expired': 'CONNECT_TIMEOUT',
  'Connection terminated unexpectedly': 'CONNECTION_CLOSED',
}
