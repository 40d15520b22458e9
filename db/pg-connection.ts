import type { EventEmitter } from 'node:events'
import type { Duplex } from 'node:stream'
import { setTimeout as pause } from 'node:timers/promises'
import pg from 'pg'
import { parseIntoClientConfig } from 'pg-connection-string'
import { Unavailable } from '../server/lib/errors.ts'
import { within } from './deadline.ts'
import { SchemaError } from './errors.ts'

/** How long a connection may take to be made (ms). */
const CONNECT_DEADLINE_MS = 2_000
/** How long one that is ended may take to say goodbye (ms): a link that fell silent never does. */
const CLOSE_TIMEOUT_MS = 1_000
/** Until the system asks whether a silent link still lives (ms). */
const KEEP_ALIVE_MS = 10_000

/** One connection to Postgres, ended for good whatever became of its link. */
export class PgConnection extends pg.Client {
  constructor(config: pg.ClientConfig = {}) {
    // pg's pool makes the password non-enumerable, so a spread alone would drop it.
    super({ ...config, password: config.password, connectionTimeoutMillis: CONNECT_DEADLINE_MS })
    // Without a listener an error of an idle link ends the process. The calls under way are told by themselves.
    this.on('error', () => {})
    const link = this.connection as unknown as Link
    // Also where it is we who refuse (SCRAM): the server would hold the connection until its own patience ends.
    link.on('error', () => this.cut())
    guardParsing(link)
  }

  // The pool calls it with a callback, others await it.
  override end(done?: (error: Error) => void): Promise<void> {
    setTimeout(() => this.cut(), CLOSE_TIMEOUT_MS).unref()
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

/** The parameters of a URL that Assay reads. Any other could change how the driver or the pool works. */
const FROM_URL = ['user', 'password', 'host', 'port', 'database', 'ssl', 'sslnegotiation'] as const

/**
 * The driver's configuration for a URL and the certificate files that it names. `settings` are set for the session and win
 * over the URL's `options`; they are part of the connection's first message, which poolers refuse. Throws if the URL or a
 * file can't be read.
 */
export function connectionTo(url: string, settings: Record<string, string> = {}): pg.ClientConfig {
  const parsed = parseIntoClientConfig(likeLibpq(url)) as Record<string, unknown>
  // libpq takes the database's name as a parameter too.
  if (parsed.dbname !== undefined) parsed.database = parsed.dbname
  const own = Object.entries(settings).map(([name, value]) => `-c ${name}=${value.replaceAll(' ', '\\ ')}`)
  const options = [parsed.options, ...own].filter(Boolean).join(' ')
  return {
    ...Object.fromEntries(FROM_URL.filter(name => name in parsed).map(name => [name, parsed[name]])),
    ...(options !== '' && { options }),
    enableChannelBinding: ['prefer', 'require'].includes(parsed.channel_binding as string),
    application_name: 'assay',
    keepAlive: true,
    keepAliveInitialDelayMillis: KEEP_ALIVE_MS,
    types,
  }
}

/**
 * `sslmode` and `sslrootcert` as libpq defines them: `require` encrypts, `verify-full` checks the server's certificate as
 * well, and `sslrootcert=system` trusts the usual public CAs, as Node does when no CA is given.
 */
function likeLibpq(url: string): string {
  const known = url.replace(/([?&])sslrootcert=system(?=&|$)/, '$1ssl=true')
  return /[?&]sslmode=/.test(known) ? `${known}&uselibpqcompat=true` : known
}

/** Runs `use` on a connection of its own, which it ends, within `deadline` milliseconds. Throws Unavailable. */
export async function connected<Result>(
  url: string,
  deadline: number,
  use: (connection: PgConnection) => Promise<Result>,
): Promise<Result> {
  let connection: PgConnection | undefined
  try {
    connection = new PgConnection(connectionTo(url))
    await connection.connect().catch(error => {
      throw refused(error, connection!)
    })
    return await within(deadline, use(connection), () => connection?.cut())
  } catch (error) {
    throw lost(error)
  } finally {
    // A connection that could not even be tried never ends by itself.
    await Promise.race([connection?.end(), pause(CLOSE_TIMEOUT_MS)])
  }
}

/** The error of a connection that was not made. A server that demands TLS refuses those without it as unknown clients. */
const refused = (error: unknown, { ssl }: PgConnection) =>
  (error as { code?: unknown }).code === '28000' && !ssl
    ? new Unavailable('database: 28000_WITHOUT_TLS', 'database')
    : error

/**
 * Sorts what pg throws: a refusal by the server and a bug of ours stay as they are; anything else is a failure of the
 * connection, named by the system's code or, where pg has only a message, by a code of ours.
 */
export function lost(error: unknown): unknown {
  const { code, message } = error as NodeJS.ErrnoException
  const isRefusal = error instanceof pg.DatabaseError && /^[0-9A-Z]{5}$/.test(code ?? '')
  const isOurs = error instanceof Unavailable || error instanceof SchemaError
  if (isRefusal || isOurs || error instanceof TypeError) return error
  return new Unavailable(`database: ${code ?? CODES[message] ?? message}`, 'database')
}

const CODES: Record<string, string> = {
  'timeout expired': 'CONNECT_TIMEOUT',
  'Connection terminated unexpectedly': 'CONNECTION_CLOSED',
  'The server does not support SSL connections': 'NO_TLS',
}
