import { createClient, ErrorReply } from 'redis'
import { RedisFailure } from './redis-errors.ts'

/** Until a connection is up, and for its greetings besides (ms). */
const CONNECT_DEADLINE_MS = 2_000
const HANDSHAKE_TIMEOUT_MS = 500
/** Between two looks at a connection: one that died in silence would bring no messages for ever (ms). */
const HEARTBEAT_MS = 2_000
/** Calls under way at most, each of them for the deadline at most. */
const MAX_QUEUED = 10_000

export type Client = ReturnType<typeof clientOf>

const clientOf = (url: string) =>
  createClient({
    url,
    // Reconnecting is ours: the driver's queue would fill while Redis is away, and it keeps a connection that is silent.
    socket: { connectTimeout: CONNECT_DEADLINE_MS, reconnectStrategy: false },
    disableOfflineQueue: true,
    commandsQueueMaxLength: MAX_QUEUED,
    maintNotifications: 'disabled',
    disableClientInfo: true,
  })

interface Events {
  /** It has answered in time. */
  onUsable(connection: RedisConnection): void
  /** Its first error reply: it lives, but may not or can not do what it is asked. */
  onRefusal(error: Error): void
  /** It is of no more use; once. */
  onDropped(error: Error): void
}

/** One connection to Redis, up to its first fault. */
export class RedisConnection {
  readonly #client: Client
  readonly #deadline: number
  readonly #events: Events
  #state: 'opening' | 'usable' | 'dropped' = 'opening'
  #refused = false
  #heartbeat: NodeJS.Timeout | undefined

  constructor(url: string, deadline: number, events: Events) {
    this.#client = clientOf(url)
    this.#deadline = deadline
    this.#events = events
    // Without a listener an error would end the process. What the driver can't read is one too.
    this.#client.on('error', error => this.drop(error))
    // One that was given up may come through after all.
    this.#client.on('ready', () => this.#state === 'dropped' && this.#client.destroy())
    this.#open().catch(error => this.drop(error))
  }

  get hasLease() {
    return this.#state === 'usable'
  }

  async #open() {
    // Given up only after the driver would have: what it is still connecting it doesn't let go of.
    await inTime(CONNECT_DEADLINE_MS + HANDSHAKE_TIMEOUT_MS, this.#client.connect())
    await inTime(this.#deadline, this.#client.ping())
    if (this.#state === 'dropped') return
    this.#state = 'usable'
    this.#heartbeat = setInterval(() => this.call(client => client.ping()).catch(() => {}), HEARTBEAT_MS)
    this.#heartbeat.unref()
    this.#events.onUsable(this)
  }

  /** Throws RedisFailure. A call that isn't answered in time is this connection's last. */
  async call<Result>(run: (client: Client) => Promise<Result>): Promise<Result> {
    if (!this.hasLease) throw new RedisFailure('Redis: not connected')
    try {
      return await inTime(this.#deadline, run(this.#client))
    } catch (error) {
      if (error instanceof ErrorReply) this.#refuse(error)
      else this.drop(error)
      throw withoutText(error)
    }
  }

  #refuse(error: ErrorReply) {
    if (!this.#refused) this.#events.onRefusal(withoutText(error))
    this.#refused = true
  }

  drop(error: unknown) {
    if (this.#state === 'dropped') return
    this.#state = 'dropped'
    clearInterval(this.#heartbeat)
    this.#client.destroy()
    this.#events.onDropped(withoutText(error))
  }
}

/** RedisFailure after `deadline` milliseconds; but what arrived while this process was busy is read first. */
function inTime<Result>(deadline: number, promise: Promise<Result>): Promise<Result> {
  const late = Promise.withResolvers<never>()
  const give = () => late.reject(new RedisFailure(`Redis: no answer within ${deadline} ms`))
  const timer = setTimeout(() => setImmediate(give), deadline)
  return Promise.race([promise, late.promise]).finally(() => clearTimeout(timer))
}

/** The driver's messages may hold what it was given; what is left is the first word of a reply (WRONGPASS) or a code. */
function withoutText(error: unknown): RedisFailure {
  if (error instanceof RedisFailure) return error
  const failure = error as Error & { code?: string }
  const word = error instanceof ErrorReply ? /^[A-Z]{2,20}\b/.exec(failure.message)?.[0] : undefined
  return new RedisFailure(`Redis: ${word ?? failure.code ?? failure.constructor.name}`)
}
