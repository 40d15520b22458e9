import { Unavailable } from '../server/lib/errors.ts'
import type { Connection, Database } from './client.ts'
import { connect, targetOf } from './connect.ts'
import type { Target } from './connection-url.ts'
import { Deadlines, type Timed } from './deadline.ts'
import { DatabaseError } from './errors.ts'
import type { Call, ConnectionOptions, PostgresConnection } from './postgres-connection.ts'
import { linkError } from './postgres-socket.ts'
import { statementName } from './prepared.ts'
import { sessionSettings } from './server-info.ts'

const POOL_SIZE = 10
/**
 * At most this many calls wait for a connection. With more, calls on a busy server would wait past their deadline.
 */
const MAX_WAITING = 10_000
const tooMany = () => new Unavailable('database: too many calls are waiting', 'busy')
/** A connection that is idle for this long is closed (ms). */
const IDLE_TIMEOUT_MS = 60_000
/** The time between two searches for idle connections (ms). */
const SWEEP_INTERVAL_MS = 10_000
/** New connections are not replaced for this long (ms), because others would lead to the same server. */
const MIN_AGE_MS = 200

/**
 * Opens a pool of connections for all calls. `connection` opens another pool, with one connection. `pooled` means that a pooler
 * is in between, which may run each statement on a different connection.
 */
export function openPostgres(
  url: string,
  deadline: number,
  pooled: boolean,
  reread?: Target['reread'],
): Database {
  const target = targetOf(url, reread)
  const open = (size: number, limit: number) => new Pool({ target, size, deadline: limit, pooled })
  return { ...open(POOL_SIZE, deadline), kind: 'postgres', connection: limit => open(1, limit) }
}

interface PoolOptions {
  target: Target
  size: number
  /** Milliseconds. */
  deadline: number
  pooled: boolean
}

/** A call that waits for a connection of the pool, or has one. */
interface PoolCall extends Call, Timed<PoolCall> {
  connection: PostgresConnection | undefined
  /** Earlier calls have smaller numbers. */
  number: number
}

/** Connections that were made since the last replacement, and so lead to one server. */
class Generation {
  /** See MIN_AGE_MS. */
  isYoung = true
  /** The number of connections that are being made. */
  connecting = 0
  readonly open = new Set<PostgresConnection>()
  /** The connection that was used last is taken first, so that surplus connections stay idle and are closed. */
  readonly idle: { connection: PostgresConnection; sweeps: number }[] = []

  constructor() {
    setTimeout(() => {
      this.isYoung = false
    }, MIN_AGE_MS).unref()
  }
}

/**
 * Runs one call at a time on each connection: with several, all would hang if the first one did. All connections are
 * replaced when a call misses its deadline, because others are then likely to be silent too, and when the server
 * turns out not to be the primary. Running calls on the replaced connections can finish.
 */
class Pool implements Connection, Pick<Database, 'usage' | 'reconnect'> {
  readonly #options: PoolOptions
  readonly #connectionOptions: ConnectionOptions
  readonly #deadlines: Deadlines<PoolCall>
  readonly #waiting = new Set<PoolCall>()
  /** The connections of every generation. */
  readonly #connections = new Set<PostgresConnection>()
  readonly #sweeper: NodeJS.Timeout
  #generation = new Generation()
  #connecting = 0
  #sweeps = 0
  #calls = 0
  #closing: PromiseWithResolvers<void> | undefined

  constructor(options: PoolOptions) {
    this.#options = options
    this.#connectionOptions = options.pooled ? {} : { settings: sessionSettings(options.deadline) }
    this.#deadlines = new Deadlines(options.deadline, call => this.#endLate(call))
    this.#sweeper = setInterval(() => this.#sweep(), SWEEP_INTERVAL_MS).unref()
  }

  // The public members are properties, because a copy of a database (`{ ...db }`) has no methods of a class.
  readonly query = <Row>(text: string, params: readonly unknown[] = []) =>
    this.#call(text, params, false) as Promise<Row[]>
  readonly values = (text: string, params: readonly unknown[] = []) =>
    this.#call(text, params, true) as Promise<unknown[][]>
  readonly usage = () => ({ calls: this.#deadlines.size, connections: this.#options.size })

  #call(text: string, params: readonly unknown[], asArrays: boolean): Promise<unknown[]> {
    // Several statements at once can't be prepared. They have neither parameters nor a name.
    const prepare = !this.#options.pooled && (params.length > 0 || statementName(text) !== undefined)
    return new Promise((resolve, reject) => {
      const call: PoolCall = {
        text,
        params,
        asArrays,
        prepare,
        connection: undefined,
        number: ++this.#calls,
        resolve: rows => {
          this.#finish(call)
          resolve(rows)
        },
        reject: error => {
          this.#finish(call, error)
          reject(error)
        },
      }
      this.#add(call)
    })
  }

  #add(call: PoolCall) {
    if (this.#closing) return call.reject(linkError('CONNECTION_ENDED'))
    if (this.#waiting.size >= MAX_WAITING) return call.reject(tooMany())
    this.#deadlines.add(call)
    const connection = this.#takeIdle()
    if (connection) return this.#start(call, connection)
    this.#waiting.add(call)
    this.#connectMore()
  }

  #takeIdle(): PostgresConnection | undefined {
    const { idle } = this.#generation
    while (idle.length > 0) {
      const { connection } = idle.pop()!
      if (!connection.isClosed) return connection
    }
    return undefined
  }

  #start(call: PoolCall, connection: PostgresConnection) {
    call.connection = connection
    connection.run(call)
  }

  /** Releases the connection of a call that is about to be settled. */
  #finish(call: PoolCall, error?: Error) {
    this.#deadlines.delete(call)
    // After a failover the old primary only reads: all connections lead to the wrong server.
    if (error instanceof Unavailable && error.detail === 'database: 25006') this.reconnect()
    if (call.connection) this.#release(call.connection)
    this.#endIfClosed()
  }

  #release(connection: PostgresConnection) {
    if (connection.isClosed) this.#drop(connection)
    else if (!this.#generation.open.has(connection)) void connection.close()
    else {
      const [next] = this.#waiting
      if (next === undefined) return this.#rest(connection)
      this.#waiting.delete(next)
      this.#start(next, connection)
    }
  }

  #rest(connection: PostgresConnection) {
    if (this.#closing) void connection.close()
    else this.#generation.idle.push({ connection, sweeps: this.#sweeps })
  }

  #drop(connection: PostgresConnection) {
    if (this.#generation.open.delete(connection)) this.#connectMore()
  }

  #connectMore() {
    const generation = this.#generation
    const missing = () => this.#waiting.size - generation.connecting
    const free = () => this.#options.size - generation.open.size - generation.connecting
    while (missing() > 0 && free() > 0) void this.#connect(generation)
  }

  async #connect(generation: Generation) {
    const newest = this.#calls
    generation.connecting++
    this.#connecting++
    const made = await connect(this.#options.target, this.#connectionOptions).catch((error: Error) => error)
    generation.connecting--
    this.#connecting--
    if (made instanceof Error) this.#connectFailed(generation, newest, made)
    else this.#connected(generation, made)
    this.#endIfClosed()
  }

  #connected(generation: Generation, connection: PostgresConnection) {
    this.#connections.add(connection)
    void connection.closed.then(() => {
      this.#connections.delete(connection)
      this.#drop(connection)
      this.#endIfClosed()
    })
    if (generation === this.#generation) generation.open.add(connection)
    this.#release(connection)
  }

  /**
   * Rejects the calls up to `newest`, which have waited since the connection attempt began, unless other connections
   * can serve them.
   */
  #connectFailed(generation: Generation, newest: number, error: Error) {
    if (generation !== this.#generation || generation.open.size > 0) return
    for (const call of this.#waiting) {
      if (call.number > newest) break
      this.#waiting.delete(call)
      call.reject(error instanceof DatabaseError ? linkError(error.sqlstate) : error)
    }
    this.#connectMore()
  }

  #endLate(call: PoolCall) {
    const error = new Unavailable(`database: no answer within ${this.#options.deadline} ms`, 'database')
    const { open } = this.#generation
    this.#waiting.delete(call)
    // A late call shows a fault only if it waited for a new connection, not if all connections were busy.
    if (call.connection ? open.has(call.connection) : open.size === 0) this.#replace()
    if (call.connection) call.connection.destroy(error)
    else call.reject(error)
  }

  /** Lets all further calls use new connections. */
  #replace() {
    const { idle } = this.#generation
    this.#generation = new Generation()
    for (const { connection } of idle) void connection.close()
    this.#connectMore()
  }

  readonly reconnect = () => {
    if (!this.#generation.isYoung) this.#replace()
  }

  #sweep() {
    this.#sweeps++
    const { idle } = this.#generation
    const old = this.#sweeps - IDLE_TIMEOUT_MS / SWEEP_INTERVAL_MS
    while (idle.length > 0 && idle[0]!.sweeps < old) void idle.shift()!.connection.close()
  }

  /** Waits for the calls that have begun. */
  readonly close = (): Promise<void> => {
    if (this.#closing) return this.#closing.promise
    this.#closing = Promise.withResolvers()
    clearInterval(this.#sweeper)
    for (const { connection } of this.#generation.idle.splice(0)) void connection.close()
    this.#endIfClosed()
    return this.#closing.promise
  }

  #endIfClosed() {
    if (this.#deadlines.size + this.#connections.size + this.#connecting === 0) this.#closing?.resolve()
  }
}
