import { type RedisClient, RedisConnection } from './redis-connection.ts'
import { RedisFailure } from './redis-errors.ts'

interface Log {
  info(message: string): void
  warn(context: { err: Error }, message: string): void
}

/** A wrong user or password, or none although one is required. */
const LOGIN_REFUSED = /^Redis: (WRONGPASS|NOAUTH)\b/

type Reread = () => Promise<string>
type OnMessage = (message: string | undefined) => void

export type Redis = ReturnType<typeof openRedis>

/** A slower call counts as failed: the database would have answered by then. */
const DEADLINE_MS = 50
/** The pause does not grow, so that Redis is used again soon after it is back. */
const RECONNECT_DELAY_MS = 200

/**
 * Redis holds only copies, counts and hints, so it may fail at any time. Calls then throw RedisFailure.
 *
 * Uses one connection at a time, from its first answer in time to the first call that isn't answered in time. A Redis that hangs
 * or is slow therefore costs one deadline, not one for each call, and no call waits for an unavailable Redis. The connection to a
 * server that became a replica is closed within seconds, and its address is tried until it leads to a primary. `reread` returns
 * the URL with its newest user and password; it is called after a login was refused.
 */
export function openRedis(
  url: string,
  log: Log,
  { deadlineMs = DEADLINE_MS, reread }: { deadlineMs?: number; reread?: Reread | undefined } = {},
) {
  const subscriptions = new Map<string, OnMessage>()
  let newestUrl = url
  let connection: RedisConnection
  let reconnectTimer: NodeJS.Timeout | undefined
  let isLost = false
  let failures = 0
  let closed = false

  async function reconnect(isLoginRefused: boolean) {
    if (isLoginRefused && reread) newestUrl = await reread()
    if (!closed) connect()
  }

  function connect() {
    connection = new RedisConnection(newestUrl, deadlineMs, { onUsable, onRefusal, onDropped })
  }

  function onUsable(usable: RedisConnection) {
    if (isLost) log.info('Redis can be used again')
    isLost = false
    for (const [channel, onMessage] of subscriptions) listen(usable, channel, onMessage)
  }

  function onDropped(err: Error) {
    if (closed) return
    if (!isLost)
      log.warn(
        { err },
        "Redis can't be used; this replica reads records from the database and counts limits on its own; check REDIS_URL if this lasts",
      )
    isLost = true
    reconnectTimer = setTimeout(reconnect, RECONNECT_DELAY_MS, LOGIN_REFUSED.test(err.message))
  }

  function onRefusal(err: Error) {
    log.warn({ err }, 'Redis refuses commands')
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
    /** Returns the first `maxBytes` of the value. Undefined: there is no value. */
    async get(key: string, maxBytes: number): Promise<string | undefined> {
      const text = await call(client => client.getRange(key, 0, maxBytes - 1))
      if (typeof text !== 'string') throw new RedisFailure('Redis: the reply is not text')
      return text === '' ? undefined : text
    },
    async set(key: string, value: string, lifetimeMs: number) {
      await call(client => client.set(key, value, { PX: lifetimeMs }))
    },
    async delete(key: string) {
      await call(client => client.del(key))
    },
    /** Runs a script. The result is whatever the script returns. */
    eval: (script: string, options: { keys: string[]; arguments: string[] }): Promise<unknown> =>
      call(client => client.eval(script, options)),
    async publish(channel: string, message: string) {
      await call(client => client.publish(channel, message))
    },
    /**
     * Calls back for each message and, with undefined, for each new connection, because messages may have been missed
     * before it.
     */
    subscribe(channel: string, onMessage: OnMessage) {
      subscriptions.set(channel, onMessage)
      if (connection.isUsable) listen(connection, channel, onMessage)
    },
    /** The number of calls that failed so far. */
    failures: () => failures,
    close() {
      closed = true
      clearTimeout(reconnectTimer)
      connection.drop(new RedisFailure('Redis: closed'))
    },
  }
}

function listen(connection: RedisConnection, channel: string, onMessage: OnMessage) {
  // If it fails the connection is dropped, or the refusal is logged.
  connection
    .call(client => client.subscribe(channel, onMessage))
    .then(
      () => onMessage(undefined),
      () => {},
    )
}
