import postgres from 'postgres'
import { Unavailable } from '../server/lib/errors.ts'
import { postgresTypes } from './codecs.ts'
import { type Host, parseConnectionUrl, type Target } from './connection-url.ts'
import { within } from './deadline.ts'
import { translate } from './errors.ts'
import { DriverSocket, dial, linkError, TERMINATE } from './postgres-socket.ts'

/** How long a host may take until it is ready for a statement (ms). */
const CONNECT_TIMEOUT_MS = 2_000
/** How long a connection that is closed may take to say goodbye (ms): a link that fell silent never does. */
const CLOSE_TIMEOUT_MS = 1_000

/** One statement on its way: settled once, whatever its connection does. */
export interface Call {
  text: string
  params: readonly unknown[]
  /** Rows as arrays in the order of the columns. */
  asArrays: boolean
  /** Kept by the server under a name, so that the next time it takes one round trip. */
  prepare: boolean
  resolve(rows: unknown[]): void
  reject(error: Error): void
}

export interface ConnectionOptions {
  /** Settings of the session, which win over the URL's `options`. Part of the first message, which poolers refuse. */
  settings?: Record<string, string>
  onNotify?(payload: string): void
}

/**
 * One connection to Postgres: a client of postgres.js that is used for one link and never for a second one. All that is
 * dangerous in the driver comes from its reconnecting (docs/decisions/2026-11-29-one-client-is-one-connection.md).
 */
export class PostgresConnection {
  readonly host: Host
  readonly #socket: DriverSocket
  readonly #sql: postgres.Sql
  readonly #closed = Promise.withResolvers<void>()
  #call: Call | undefined
  #isClosed = false

  constructor(
    host: Host,
    socket: Awaited<ReturnType<typeof dial>>,
    target: Target,
    options: ConnectionOptions,
  ) {
    this.host = host
    this.#socket = new DriverSocket(socket, error => this.#end(error))
    this.#sql = postgres(driverOptions(target, options, onlyOnce(this.#socket)))
  }

  /** The backend's process, or what a pooler makes up instead. */
  get pid() {
    return this.#socket.pid
  }

  /** Whether it can't be used any more. */
  get isClosed() {
    return this.#isClosed
  }

  /** Resolves when its link is gone. */
  get closed(): Promise<void> {
    return this.#closed.promise
  }

  /** Logs in. Any answer at all will do: this one isn't even parsed by the server. */
  async logIn() {
    const login = Promise.withResolvers<unknown[]>()
    this.#call = { text: '', params: [], asArrays: false, prepare: false, ...login }
    this.#sql.unsafe('').then(
      () => this.#take()?.resolve([]),
      error => this.#take()?.reject(isRefusal(error) ? translate(error) : linkError(error.code)),
    )
    await login.promise
  }

  /** Several statements at once may have no parameters; the rows are the last one's. Throws Unavailable or DatabaseError. */
  query<Row>(text: string, params: readonly unknown[] = []): Promise<Row[]> {
    return new Promise((resolve, reject) => {
      this.run({ text, params, asArrays: false, prepare: false, resolve: resolve as Call['resolve'], reject })
    })
  }

  /** For one call at a time. */
  run(call: Call) {
    if (this.#isClosed) return call.reject(linkError('CONNECTION_CLOSED'))
    this.#call = call
    const params = call.params.map(toParameter) as never[]
    const query = this.#sql.unsafe(call.text, params, call.prepare ? PREPARED : UNNAMED)
    // Both are methods made once: no closure is made for a call.
    ;(call.asArrays ? query.values() : query).then(this.#onAnswer, this.#onError)
  }

  /** The call under way, which then is nobody else's to settle. */
  #take(): Call | undefined {
    const call = this.#call
    this.#call = undefined
    return call
  }

  #onAnswer = (answer: Answer | Answer[]) => {
    const last = isSeveral(answer) ? answer.at(-1)! : answer
    if (!isComplete(last)) return this.destroy(linkError('INCOMPLETE_ANSWER'))
    this.#take()?.resolve([...last])
  }

  #onError = (thrown: Error) => {
    const error = translate(thrown)
    // The server refused a statement, and the connection is whole.
    if (isRefusal(thrown) && !(error instanceof Unavailable)) this.#afterRefusal(error)
    else this.destroy(error)
  }

  /**
   * An error behind the first rows of an answer leaves the driver counting them, and the next answer would begin with as
   * many holes. The end of any other statement without rows sets its count to zero.
   */
  #afterRefusal(error: Error) {
    const settle = () => this.#take()?.reject(error)
    if (this.#call !== undefined)
      this.#sql.unsafe('select where false').then(settle, () => this.destroy(error))
  }

  /** At once. A call under way is told `error`. */
  destroy(error: Error) {
    this.#isClosed = true
    this.#take()?.reject(error)
    this.#socket.destroy()
  }

  /** The link is gone: the driver is not asked what became of the call. */
  #end(error: Unavailable) {
    this.#isClosed = true
    this.#closed.resolve()
    this.#take()?.reject(error)
  }

  /** Says goodbye. For a connection that has no call. */
  close(): Promise<void> {
    this.#isClosed = true
    this.#socket.end(TERMINATE)
    setTimeout(() => this.#socket.destroy(), CLOSE_TIMEOUT_MS).unref()
    return this.#closed.promise
  }
}

const PREPARED = { prepare: true, simple: false }
const UNNAMED = { prepare: false }

const isRefusal = (error: unknown) => error instanceof postgres.PostgresError

type Answer = postgres.RowList<postgres.Row[]> & { count: number | null }

const isSeveral = (answer: Answer | Answer[]): answer is Answer[] => !('command' in answer)

/** The driver resolves also what a broken link left incomplete: without its last message, or with holes for rows. */
function isComplete({ command, count, length, columns }: Answer): boolean {
  if (!command) return false
  return count === null || length === count || (length === 0 && !columns?.length)
}

/** A parameter of the type that Postgres finds in the statement. The driver would guess one from some values. */
function toParameter(value: unknown) {
  const isGuessed = typeof value === 'boolean' || typeof value === 'bigint' || typeof value === 'object'
  return isGuessed && value !== null ? typed(value as never, 0) : (value ?? null)
}

const { typed } = postgres({ max: 1 })

/** A client that asked for a second socket would reconnect. */
function onlyOnce(socket: DriverSocket) {
  let isTaken = false
  return () => {
    if (isTaken) throw linkError('CONNECTION_CLOSED')
    isTaken = true
    return socket
  }
}

/** All that the driver would otherwise take from the environment is said. */
function driverOptions(
  { user, password, database, options }: Target,
  own: ConnectionOptions,
  socket: () => unknown,
) {
  return {
    socket,
    host: 'localhost',
    port: 5432,
    ...(user !== undefined && { user }),
    ...(password !== undefined && { pass: password }),
    ...(database !== undefined && { database }),
    connection: { application_name: 'assay', ...(options !== undefined && { options }), ...own.settings },
    max: 1,
    max_pipeline: 1,
    fetch_types: false,
    ssl: false,
    sslnegotiation: null,
    idle_timeout: null,
    connect_timeout: null,
    max_lifetime: null,
    keep_alive: null,
    backoff: false,
    prepare: true,
    debug: false,
    types: TYPES,
    onnotice: () => {},
    onnotify: (_channel: string, payload: string) => own.onNotify?.(payload),
  } as unknown as postgres.Options<Record<string, postgres.PostgresType>>
}

const TYPES = postgresTypes()

/** The host of each URL that was connected to last: the others may be down, and would cost their whole timeout first. */
const lastConnected = new Map<string, number>()

/** Connects to the first host that serves what the URL asks for. Throws what the last one failed with: Unavailable or DatabaseError. */
export async function connect(target: Target, options: ConnectionOptions = {}): Promise<PostgresConnection> {
  const { hosts } = target
  const name = hosts.map(({ host, port }) => `${host}:${port}`).join()
  const first = lastConnected.get(name) ?? 0
  let failure: unknown
  for (let tried = 0; tried < hosts.length; tried++) {
    const place = (first + tried) % hosts.length
    try {
      const connection = await connectTo(hosts[place]!, target, options)
      lastConnected.set(name, place)
      return connection
    } catch (error) {
      failure = error
    }
  }
  throw failure
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

/** A server that demands TLS refuses those without it as unknown clients. */
const withoutTls = (error: unknown, { tls }: Host) =>
  error instanceof Unavailable && error.detail === 'database: 28000' && tls === undefined
    ? linkError('28000_WITHOUT_TLS')
    : error

/** Throws Unavailable if the server doesn't serve what `target_session_attrs` asks for. */
async function checkSession(connection: PostgresConnection, { sessions }: Target) {
  if (sessions === 'any') return
  const [row] = await connection.query<{ standby: boolean; readOnly: boolean }>(
    `select pg_is_in_recovery() as standby, current_setting('transaction_read_only') = 'on' as "readOnly"`,
  )
  if (row!.standby) throw linkError('STANDBY')
  if (row!.readOnly && sessions === 'read-write') throw linkError('READ_ONLY')
}

/** Runs `use` on a connection of its own, which it closes, within `deadline` milliseconds. Throws Unavailable or DatabaseError. */
export async function connected<Result>(
  url: string,
  deadline: number,
  use: (connection: PostgresConnection) => Promise<Result>,
): Promise<Result> {
  const connection = await connect(targetOf(url))
  try {
    return await within(deadline, use(connection), () => connection.destroy(linkError('TIMEOUT')))
  } finally {
    if (!connection.isClosed) await connection.close()
  }
}

/** Throws Unavailable for a file that the URL names and that can't be read. */
export function targetOf(url: string): Target {
  try {
    return parseConnectionUrl(url)
  } catch (error) {
    throw translate(error)
  }
}
