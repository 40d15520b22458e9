import { type Client, RedisConnection } from './redis-connection.ts'
import { RedisFailure } from './redis-errors.ts'

/** A Redis that may fail at any time: what it holds is a copy, a count or a hint. Calls throw RedisFailure. */
export interface Redis {
  /** The first `most` bytes of what is there; undefined: nothing. */
  get(key: string, most: number): Promise<string | undefined>
  /** Kept for `life` milliseconds at most. */
  set(key: string, value: string, life: number): Promise<void>
  /** What a script answers, whatever that is. */
  eval(script: string, options: { keys: string[]; arguments: string[] }): Promise<unknown>
  publish(channel: string): Promise<void>
  /** Calls back at each message, and at each new connection: there may have been one meanwhile. */
  subscribe(channel: string, onMessage: () => void): void
  /** Calls that failed so far. */
  failures(): number
  close(): void
}

interface Log {
  info(message: string): void
  warn(context: { err: Error }, message: string): void
}

/** A call that takes longer has failed: the database would have answered by then (ms). */
const DEADLINE_MS = 50
/** Between two tries to connect, without a growing back-off: its return is felt at once (ms). */
const RECONNECT_MS = 200

/**
 * One connection at a time, used from when it has answered in time until it once doesn't. So a Redis that hangs or is slow
 * costs one deadline, not one for each call, and nothing waits or queues for one that is away.
 */
export function openRedis(url: string, log: Log, deadline = DEADLINE_MS): Redis {
  const subscriptions = new Map<string, () => void>()
  let connection: RedisConnection
  let redial: NodeJS.Timeout | undefined
  let lost = false
  let failures = 0
  let closed = false

  function dial() {
    connection = new RedisConnection(url, deadline, { onUsable, onRefusal, onDropped })
  }

  function onUsable(hasLease: RedisConnection) {
    if (lost) log.info('Redis is used again')
    lost = false
    for (const [channel, onMessage] of subscriptions) listen(hasLease, channel, onMessage)
  }

  function onDropped(err: Error) {
    if (closed) return
    if (!lost)
      log.warn(
        { err },
        'Redis can not be used: records are read from the database, limits count here; check REDIS_URL if this stays',
      )
    lost = true
    redial = setTimeout(dial, RECONNECT_MS)
  }

  function onRefusal(err: Error) {
    log.warn({ err }, 'Redis refuses what it is asked')
  }

  async function call<Result>(run: (client: Client) => Promise<Result>): Promise<Result> {
    try {
      return await connection.call(run)
    } catch (error) {
      failures++
      throw error
    }
  }

  dial()
  return {
    async get(key, most) {
      const text = await call(client => client.getRange(key, 0, most - 1))
      if (typeof text !== 'string') throw new RedisFailure('Redis: no text')
      return text === '' ? undefined : text
    },
    set: (key, value, life) => call(async client => void (await client.set(key, value, { PX: life }))),
    eval: (script, options) => call(async client => client.eval(script, options) as Promise<unknown>),
    publish: channel => call(async client => void (await client.publish(channel, ''))),
    subscribe(channel, onMessage) {
      subscriptions.set(channel, onMessage)
      if (connection.hasLease) listen(connection, channel, onMessage)
    },
    failures: () => failures,
    close() {
      closed = true
      clearTimeout(redial)
      connection.drop(new RedisFailure('Redis: closed'))
    },
  }
}

function listen(connection: RedisConnection, channel: string, onMessage: () => void) {
  connection.call(client => client.subscribe(channel, onMessage)).then(onMessage, () => {}) // Told, or dropped.
}
