import { randomUUID } from 'node:crypto'
import { type RedisClient, RedisConnection } from './redis-connection.ts'
import { RedisFailure } from './redis-errors.ts'

/** Longer than a server's timeout, because the call is made once, by a process that has just started (ms). */
const DEADLINE_MS = 2_000
const LIFETIME_MS = 10_000

/** Calls the commands of the rate limiter's script. */
const COUNT = `redis.call('set', KEYS[1], 0, 'EX', ARGV[1], 'NX')
  redis.call('incrby', KEYS[1], 1)
  redis.call('expire', KEYS[1], ARGV[1])
  return redis.call('pttl', KEYS[1])`

/** Every command that a server uses, by its name. */
const commands = (key: string): Record<string, (client: RedisClient) => Promise<unknown>> => ({
  SET: client => client.set(`${key}:record`, 'x', { PX: LIFETIME_MS }),
  GETRANGE: client => client.getRange(`${key}:record`, 0, 0),
  EVAL: client => client.eval(COUNT, { keys: [`${key}:limit`], arguments: [`${LIFETIME_MS / 1_000}`] }),
  DEL: client => client.del(`${key}:record`),
  PUBLISH: client => client.publish(`${key}:hints`, ''),
  SUBSCRIBE: client => client.subscribe(`${key}:hints`, () => {}),
})

/** Connects as a server does and runs each of its commands. Throws RedisFailure, which names the command. */
export async function checkRedis(url: string): Promise<void> {
  const connection = await connect(url)
  try {
    for (const [name, run] of Object.entries(commands(`assay:doctor:${randomUUID()}`)))
      await connection.call(run).catch(({ message }: RedisFailure) => {
        throw new RedisFailure(`${message} (${name})`)
      })
  } finally {
    connection.drop(new RedisFailure('Redis: closed'))
  }
}

const connect = (url: string) =>
  new Promise<RedisConnection>((onUsable, onDropped) => {
    new RedisConnection(url, DEADLINE_MS, { onUsable, onDropped, onRefusal: () => {} })
  })
