import { type RedisClient, RedisConnection } from './redis-connection.ts'
import { RedisFailure } from './redis-errors.ts'

/** Redis holds only copies, counts and hints, so it may fail at any time. Calls then throw RedisFailure. */
export interface Redis {
  /** Returns the first `maxBytes` of the value. Undefined: there is no value. */
  get(key: string, maxBytes: number): Promise<string | undefined>
  set(key: string, value: string, lifetimeMs: number): Promise<void>
  /** Runs a script. The result is whatever the script returns. */
  eval(script: string, options: { keys: string[]; arguments: string[] }): Promise<unknown>
  publish(channel: string): Promise<void>
  /** Calls back for each message and for each new connection, because messages may have been missed before it. */
  subscribe(channel: string, onMessage: () => void): void
  /** The number of calls that failed so far. */
  failures(): number
  close(): void
}

interface Log {
  info(message: string): void
  warn(context: { err: Error }, message: string): void
}

/** A slower call has failed: the database would have answered by then. */
const DEADLINE_MS = 50
/** Without a growing back-off, so that Redis is used again soon after it is back. */
const RECONNECT_DELAY_MS = 200

/**
 * Uses one connection at a time, from its first answer in time to the first call that isn't answered in time. A Redis that
 * hangs or is slow therefore costs one deadline, not one for each call, and no call waits for a Redis that is away.
 */
export function openRedis(url: string, log: Log, deadlineMs = DEADLINE_MS): Redis {
  const subscriptions = new Map<string, () => void>()
  let connection: RedisConnection
  let reconnectTimer: NodeJS.Timeout | undefined
  let isLost = false
  let failures = 0
  let closed = false

  function connect() {
    connection = new RedisConnection(url, deadlineMs, { onUsable, onRefusal, onDropped })
  }

  function onUsable(usable: RedisConnection) {
    if (isLost) log.info('Redis is used again')
    isLost = false
    for (const [channel, onMessage] of subscriptions) listen(usable, channel, onMessage)
  }

  function onDropped(err: Error) {
    if (closed) return
    if (!isLost)
      log.warn(
        { err },
        'Redis can not be used: records are read from the database, limits count here; check REDIS_URL if this stays',
      )
    isLost = true
    reconnectTimer = setTimeout(connect, RECONNECT_DELAY_MS)
  }

  function onRefusal(err: Error) {
    log.warn({ err }, 'Redis refuses what it is asked')
  }

  async function call<Result>(run: (client: RedisClient) => Promise<Result>): Promise<Result> {
    try {
      return await connection.call(run)
    } catch (error) {
      failures++
      throw error
    }
  }

  connect()
  return {
    async get(key, maxBytes) {
      const text = await call(client => client.getRange(key, 0, maxBytes - 1))
      if (typeof text !== 'string') throw new RedisFailure('Redis: no text')
      return text === '' ? undefined : text
    },
    set: (key, value, lifetimeMs) =>
      call(async client => void (await client.set(key, value, { PX: lifetimeMs }))),
    eval: (script, options) => call(async client => client.eval(script, options) as Promise<unknown>),
    publish: channel => call(async client => void (await client.publish(channel, ''))),
    subscribe(channel, onMessage) {
      subscriptions.set(channel, onMessage)
      if (connection.isUsable) listen(connection, channel, onMessage)
    },
    failures: () => failures,
    close() {
      closed = true
      clearTimeout(reconnectTimer)
      connection.drop(new RedisFailure('Redis: closed'))
    },
  }
}

function listen(connection: RedisConnection, channel: string, onMessage: () => void) {
  // If it fails the connection is dropped, or the refusal is logged.
  connection.call(client => client.subscribe(channel, onMessage)).then(onMessage, () => {})
}
