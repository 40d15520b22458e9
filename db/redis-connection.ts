import { createClient, ErrorReply } from 'redis'
import { RedisFailure } from './redis-errors.ts'

const CONNECT_TIMEOUT_MS = 2_000
/** Additional time for HELLO and AUTH (ms). */
const HANDSHAKE_TIMEOUT_MS = 500
/**
 * The interval between checks (ms): only they detect a silently dead connection, or a server that became a replica.
 */
const ROLE_CHECK_INTERVAL_MS = 2_000
/** The most concurrent calls. Each waits for the deadline at most. */
const MAX_PENDING_CALLS = 10_000

export type RedisClient = ReturnType<typeof createRedisClient>

const createRedisClient = (url: string) =>
  createClient({
    url,
    // The driver doesn't reconnect: it would keep a silent connection for as long as something is written to it.
    socket: { connectTimeout: CONNECT_TIMEOUT_MS, reconnectStrategy: false },
    disableOfflineQueue: true,
    commandsQueueMaxLength: MAX_PENDING_CALLS,
    maintNotifications: 'disabled',
    disableClientInfo: true,
  })

interface Events {
  /** The connection leads to a primary, which has answered in time. */
  onUsable(connection: RedisConnection): void
  /** Called for the first error reply, for example OOM or NOPERM. The connection stays. */
  onRefusal(error: Error): void
  /** Called once, when the connection is closed. */
  onDropped(error: Error): void
}

/** One connection to Redis. Its first fault closes it. */
export class RedisConnection {
  readonly #client: RedisClient
  readonly #deadlineMs: number
  readonly #events: Events
  #state: 'opening' | 'usable' | 'dropped' = 'opening'
  #hasRefused = false
  #roleChecks: NodeJS.Timeout | undefined

  constructor(url: string, deadlineMs: number, events: Events) {
    this.#client = createRedisClient(url)
    this.#deadlineMs = deadlineMs
    this.#events = events
    // Without a listener an error would end the process. A reply that the driver can't read is an error too.
    this.#client.on('error', error => this.drop(error))
    // A connection that was dropped may be established later.
    this.#client.on('ready', () => this.#state === 'dropped' && this.#client.destroy())
    this.#open().catch(error => this.drop(error))
  }

  get isUsable() {
    return this.#state === 'usable'
  }

  async #open() {
    // Longer than the driver's own timeout: destroy() doesn't stop a connection that is being established.
    await withTimeout(CONNECT_TIMEOUT_MS + HANDSHAKE_TIMEOUT_MS, this.#client.connect())
    await withTimeout(this.#deadlineMs, assertPrimary(this.#client))
    if (this.#state === 'dropped') return
    this.#state = 'usable'
    this.#roleChecks = setInterval(() => this.call(assertPrimary).catch(() => {}), ROLE_CHECK_INTERVAL_MS)
    this.#roleChecks.unref()
    this.#events.onUsable(this)
  }

  /** Throws RedisFailure. A call that isn't answered in time closes the connection. */
  async call<Result>(run: (client: RedisClient) => Promise<Result>): Promise<Result> {
    if (!this.isUsable) throw new RedisFailure('Redis: not connected')
    try {
      return await withTimeout(this.#deadlineMs, run(this.#client))
    } catch (error) {
      if (error instanceof ErrorReply) this.#refuse(error)
      else this.drop(error)
      throw toRedisFailure(error)
    }
  }

  #refuse(error: ErrorReply) {
    if (!this.#hasRefused) this.#events.onRefusal(toRedisFailure(error))
    this.#hasRefused = true
  }

  drop(error: unknown) {
    if (this.#state === 'dropped') return
    this.#state = 'dropped'
    clearInterval(this.#roleChecks)
    this.#client.destroy()
    this.#events.onDropped(toRedisFailure(error))
  }
}

/**
 * Throws RedisFailure if the server is a replica, which takes no writes. Behind a fixed address it may have been the primary
 * before, and a new connection leads to the new one. Every user may call HELLO, whatever its ACL.
 */
async function assertPrimary(client: RedisClient) {
  const { role } = (await client.hello()) as { role?: unknown }
  if (role === 'replica') throw new RedisFailure('Redis: READONLY')
}

/** Throws RedisFailure after `timeoutMs`. A reply that arrived while this process was busy is read first. */
function withTimeout<Result>(timeoutMs: number, promise: Promise<Result>): Promise<Result> {
  const late = Promise.withResolvers<never>()
  const giveUp = () => late.reject(new RedisFailure(`Redis: no answer within ${timeoutMs} ms`))
  const timer = setTimeout(() => setImmediate(giveUp), timeoutMs)
  return Promise.race([promise, late.promise]).finally(() => clearTimeout(timer))
}

/** Keeps only the first word of an error reply (WRONGPASS) or a code, because the driver's messages may hold values. */
function toRedisFailure(error: unknown): RedisFailure {
  if (error instanceof RedisFailure) return error
  const failure = error as Error & { code?: string }
  const word = error instanceof ErrorReply ? /^[A-Z]{2,20}\b/.exec(failure.message)?.[0] : undefined
  return new RedisFailure(`Redis: ${word ?? failure.code ?? failure.constructor.name}`)
}
