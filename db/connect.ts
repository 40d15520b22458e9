import { Unavailable } from '../server/lib/errors.ts'
import { type Host, parseConnectionUrl, parseLogin, type Target } from './connection-url.ts'
import { within } from './deadline.ts'
import { translate } from './errors.ts'
import { type ConnectionOptions, PostgresConnection } from './postgres-connection.ts'
import { dial, linkError } from './postgres-socket.ts'

/** A host must be ready for a statement within this time (ms). */
const CONNECT_TIMEOUT_MS = 2_000

/**
 * The host that each URL was last connected to. It is tried first, because another host may be down and take its whole timeout.
 */
const lastConnected = new Map<string, number>()

/**
 * Connects to the first host that offers the sessions that the URL requests. If a host refuses the login and `reread` returns
 * another user or password, it tries once more with these. Throws the last host's Unavailable or DatabaseError.
 */
export async function connect(target: Target, options: ConnectionOptions = {}): Promise<PostgresConnection> {
  const { user, password } = target
  const { connection, failure, isRefused } = await tryHosts(target, options)
  if (connection) return connection
  if (isRefused && target.reread) Object.assign(target, parseLogin(await target.reread()))
  // Another connection may have updated the target first.
  if (target.user === user && target.password === password) throw failure
  const again = await tryHosts(target, options)
  if (again.connection) return again.connection
  throw again.failure
}

/** A wrong password, an unknown user, or one that may not log in. pgbouncer before 1.19 sends 08P01. */
const LOGIN_REFUSED = /^database: (28P01|28000|28000_WITHOUT_TLS|08P01)$/

async function tryHosts(target: Target, options: ConnectionOptions) {
  const { hosts } = target
  const name = hosts.map(({ host, port }) => `${host}:${port}`).join()
  const first = lastConnected.get(name) ?? 0
  let failure: unknown
  let isRefused = false
  for (let tried = 0; tried < hosts.length; tried++) {
    const place = (first + tried) % hosts.length
    try {
      const connection = await connectTo(hosts[place]!, target, options)
      lastConnected.set(name, place)
      return { connection }
    } catch (error) {
      failure = error
      isRefused ||= error instanceof Unavailable && LOGIN_REFUSED.test(error.detail ?? '')
    }
  }
  return { failure, isRefused }
}

async function connectTo(
  host: Host,
  target: Target,
  options: ConnectionOptions,
): Promise<PostgresConnection> {
  const aborted = new AbortController()
  let connection: PostgresConnection | undefined
  const timer = setTimeout(() => {
    aborted.abort()
    connection?.destroy(linkError('CONNECT_TIMEOUT'))
  }, CONNECT_TIMEOUT_MS)
  try {
    connection = new PostgresConnection(host, await dial(host, aborted.signal), target, options)
    await connection.logIn()
    await checkSession(connection, target)
    return connection
  } catch (error) {
    connection?.destroy(error as Error)
    throw aborted.signal.aborted ? linkError('CONNECT_TIMEOUT') : withoutTls(error, host)
  } finally {
    clearTimeout(timer)
  }
}

/** A server that demands TLS refuses connections without it with 28000, like unknown users. */
const withoutTls = (error: unknown, { tls }: Host) =>
  error instanceof Unavailable && error.detail === 'database: 28000' && tls === undefined
    ? linkError('28000_WITHOUT_TLS')
    : error

/** Throws Unavailable if the server does not match `target_session_attrs`. */
async function checkSession(connection: PostgresConnection, { sessions }: Target) {
  if (sessions === 'any') return
  const [row] = await connection.query<{ standby: boolean; readOnly: boolean }>(
    `select pg_is_in_recovery() as standby, current_setting('transaction_read_only') = 'on' as "readOnly"`,
  )
  if (row!.standby) throw linkError('STANDBY')
  if (row!.readOnly && sessions === 'read-write') throw linkError('READ_ONLY')
}

/** Runs `use` on a new connection within `deadline` milliseconds, then closes it. Throws Unavailable or DatabaseError. */
export async function connected<Result>(
  url: string,
  deadline: number,
  use: (connection: PostgresConnection) => Promise<Result>,
  reread?: Target['reread'],
): Promise<Result> {
  const connection = await connect(targetOf(url, reread))
  try {
    return await within(deadline, use(connection), () => connection.destroy(linkError('TIMEOUT')))
  } finally {
    if (!connection.isClosed) await connection.close()
  }
}

/** Throws Unavailable if a file that the URL names can't be read. */
export function targetOf(url: string, reread?: Target['reread']): Target {
  try {
    return { ...parseConnectionUrl(url), reread }
  } catch (error) {
    throw translate(error)
  }
}
