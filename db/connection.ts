import type { EventEmitter } from 'node:events'
import type { Duplex } from 'node:stream'
import pg from 'pg'
import { parseIntoClientConfig } from 'pg-connection-string'
import { Unavailable } from '../server/errors.ts'
import { within } from './deadline.ts'
import { SchemaUnfit } from './failures.ts'

/** How long a connection may take to be made (ms). */
const CONNECT_DEADLINE = 2_000
/** How long one that is ended may take to say goodbye (ms): a link that fell silent never does. */
const FAREWELL = 1_000
/** Until the system asks whether a silent link still lives (ms). */
const KEEP_ALIVE = 10_000

/** One connection to Postgres, ended for good whatever became of its link. */
export class Connection extends pg.Client {
  constructor(config: pg.ClientConfig = {}) {
    super({ ...config, connectionTimeoutMillis: CONNECT_DEADLINE })
    // Without a listener an error of an idle link ends the process. The calls under way are told by themselves.
    this.on('error', () => {})
    const link = this.connection as unknown as Link
    // Also where it is we who refuse (SCRAM): the server would hold the connection until its own patience ends.
    link.on('error', () => this.cut())
    guardParsing(link)
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

interface Link extends EventEmitter {
  /** Called for the socket, and again once it speaks TLS. */
  attachListeners(stream: Duplex): void
}

/** pg's parser throws at what it doesn't know, out of the socket's event: that would end the process. */
function guardParsing(connection: Link) {
  const attach = connection.attachListeners.bind(connection)
  connection.attachListeners = stream => {
    const before = stream.listeners('data')
    attach(stream)
    for (const parse of stream.listeners('data').filter(listener => !before.includes(listener))) {
      stream.off('data', parse as () => void)
      stream.on('data', chunk => {
        try {
          parse(chunk)
        } catch (error) {
          stream.destroy(error as Error)
        }
      })
    }
  }
}

const types = new pg.TypeOverrides()
types.setTypeParser(pg.types.builtins.INT8, Number)

/** What a URL may say that is ours to say: it would win over the settings of the session. */
const OURS = [
  'statement_timeout',
  'lock_timeout',
  'idle_in_transaction_session_timeout',
  'query_timeout',
  'connectionTimeoutMillis',
]

/**
 * What every connection has in common, read from the URL and the files that it names. `settings` are the server's, for the
 * session: they go with the connection's first message, which a pooler refuses. Throws what can't be read.
 */
export function connectionTo(url: string, settings: Record<string, string> = {}): pg.ClientConfig {
  return {
    ...parseIntoClientConfig(withSettings(url, settings)),
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
  for (const name of OURS) searchParams.delete(name)
  // As libpq reads it: `require` encrypts, `verify-full` checks whom it speaks to as well.
  if (searchParams.has('sslmode')) searchParams.set('uselibpqcompat', 'true')
  const own = Object.entries(settings).map(([name, value]) => `-c ${name}=${value.replaceAll(' ', '\\ ')}`)
  const options = [searchParams.get('options'), ...own].filter(Boolean).join(' ')
  if (options !== '') searchParams.set('options', options)
  return target.href
}

/** Runs `use` on a connection of its own, which it ends, within `deadline` milliseconds. Throws Unavailable. */
export async function connected<Result>(
  url: string,
  deadline: number,
  use: (connection: Connection) => Promise<Result>,
): Promise<Result> {
  let connection: Connection | undefined
  try {
    connection = new Connection(connectionTo(url))
    await connection.connect()
    return await within(deadline, use(connection), () => connection?.cut())
  } catch (error) {
    throw lost(error)
  } finally {
    await connection?.end()
  }
}

/**
 * What pg throws, told apart: what the server refused and what is a bug stays as it is; everything else is the link's
 * failure, by the system's code or, where pg has only words, by those.
 */
export function lost(error: unknown): unknown {
  const { code, message } = error as NodeJS.ErrnoException
  const isRefusal = error instanceof pg.DatabaseError && /^[0-9A-Z]{5}$/.test(code ?? '')
  const isOurs = error instanceof Unavailable || error instanceof SchemaUnfit
  if (isRefusal || isOurs || error instanceof TypeError) return error
  return new Unavailable(`database: ${code ?? WORDS[message] ?? message}`, 'database')
}

const WORDS: Record<string, string> = {
  'timeout expired': 'CONNECT_TIMEOUT',
  'Connection terminated unexpectedly': 'CONNECTION_CLOSED',
}
