import postgres from 'postgres'
import { Unavailable } from '../server/lib/errors.ts'
import { POSTGRES_TYPES } from './codecs.ts'
import type { Host, Target } from './connection-url.ts'
import { translate } from './errors.ts'
import { DriverSocket, type dial, linkError, TERMINATE } from './postgres-socket.ts'

/** A connection is destroyed if it is not closed within this time (ms), because a silent link never closes. */
const CLOSE_TIMEOUT_MS = 1_000

/** A running statement. It is settled once, whatever happens to its connection. */
export interface Call {
  text: string
  params: readonly unknown[]
  /** Rows as arrays in the order of the columns. */
  asArrays: boolean
  /** The server keeps it as a prepared statement, so that it takes one round trip from the second time on. */
  prepare: boolean
  resolve(rows: unknown[]): void
  reject(error: Error): void
}

export interface ConnectionOptions {
  /**
   * Session settings, which take precedence over the URL's `options`. They are part of the first message; poolers refuse them.
   */
  settings?: Record<string, string>
  onNotify?(payload: string): void
}

/**
 * One connection to Postgres: a postgres.js client that is thrown away with its first socket. Reconnecting inside a client is
 * what makes the driver dangerous (docs/decisions/2026-11-29-one-client-is-one-connection.md).
 */
export class PostgresConnection {
  readonly host: Host
  readonly #socket: DriverSocket
  readonly #sql: postgres.Sql
  readonly #closed = Promise.withResolvers<void>()
  /** Resolves when its socket is closed. */
  readonly closed = this.#closed.promise
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

  /** The process id of the backend. A pooler sends a number of its own instead. */
  get pid() {
    return this.#socket.pid
  }

  /** True when it can't be used any more. */
  get isClosed() {
    return this.#isClosed
  }

  /** Logs in. The driver connects for a statement, and an empty one costs the server nothing. */
  async logIn() {
    const login = Promise.withResolvers<unknown[]>()
    this.#call = { text: '', params: [], asArrays: false, prepare: false, ...login }
    this.#sql.unsafe('').then(
      () => this.#take()?.resolve([]),
      error => this.#take()?.reject(isRefusal(error) ? translate(error) : linkError(error.code)),
    )
    await login.promise
  }

  /**
   * Runs a statement, or several without parameters, and returns the rows of the last one. Throws Unavailable or
   * DatabaseError.
   */
  query<Row>(text: string, params: readonly unknown[] = []): Promise<Row[]> {
    return new Promise((resolve, reject) => {
      this.run({ text, params, asArrays: false, prepare: false, resolve: resolve as Call['resolve'], reject })
    })
  }

  /** Runs one call. The previous call must have been settled. */
  run(call: Call) {
    if (this.#isClosed) return call.reject(linkError('CONNECTION_CLOSED'))
    this.#call = call
    const params = call.params.map(toParameter) as never[]
    const query = this.#sql.unsafe(call.text, params, call.prepare ? PREPARED : UNNAMED)
    // These handlers are made once for each connection, so that a call needs no closures.
    ;(call.asArrays ? query.values() : query).then(this.#onAnswer, this.#onError)
  }

  /** Returns the running call and forgets it, so that it is settled only once. */
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
    // The server refused the statement; the connection is intact.
    if (isRefusal(thrown) && !(error instanceof Unavailable)) this.#afterRefusal(error)
    else this.destroy(error)
  }

  /**
   * After an error that follows rows, the driver does not reset its row count, so the next result would begin with that many
   * empty rows. A statement that returns no rows resets the count.
   */
  #afterRefusal(error: Error) {
    const settle = () => this.#take()?.reject(error)
    if (this.#call !== undefined)
      this.#sql.unsafe('select where false').then(settle, () => this.destroy(error))
  }

  /** Closes the socket at once and rejects the running call with `error`. */
  destroy(error: Error) {
    this.#isClosed = true
    this.#take()?.reject(error)
    this.#socket.destroy()
  }

  /** Called when the socket is closed. The call is rejected here, whatever the driver does with it. */
  #end(error: Unavailable) {
    this.#isClosed = true
    this.#closed.resolve()
    this.#take()?.reject(error)
  }

  /** Closes a connection that has no running call. */
  close(): Promise<void> {
    this.#isClosed = true
    this.#socket.end(TERMINATE)
    setTimeout(() => this.#socket.destroy(), CLOSE_TIMEOUT_MS).unref()
    return this.closed
  }
}

const PREPARED = { prepare: true, simple: false }
const UNNAMED = { prepare: false }

const isRefusal = (error: unknown) => error instanceof postgres.PostgresError

type Answer = postgres.RowList<postgres.Row[]> & { count: number | null }

const isSeveral = (answer: Answer | Answer[]): answer is Answer[] => !('command' in answer)

/** False if the result has no command, or if its count differs from its number of rows: the driver resolves such a result too. */
function isComplete({ command, count, length, columns }: Answer): boolean {
  if (!command) return false
  return count === null || length === count || (length === 0 && !columns?.length)
}

/** Lets Postgres determine the type of a parameter from the statement. The driver would guess it from the value. */
function toParameter(value: unknown) {
  const isGuessed = typeof value === 'boolean' || typeof value === 'bigint' || typeof value === 'object'
  return isGuessed && value !== null ? typed(value as never, 0) : (value ?? null)
}

const { typed } = postgres({ max: 1 })

/** A driver that requests a second socket is reconnecting, which ends its call with an error. */
function onlyOnce(socket: DriverSocket) {
  let isTaken = false
  return () => {
    if (isTaken) throw linkError('CONNECTION_CLOSED')
    isTaken = true
    return socket
  }
}

/** Sets every option that the driver would otherwise read from the environment. */
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
    types: POSTGRES_TYPES,
    onnotice: () => {},
    onnotify: (_channel: string, payload: string) => own.onNotify?.(payload),
  } as unknown as postgres.Options<Record<string, postgres.PostgresType>>
}
