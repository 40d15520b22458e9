import { inject } from 'vitest'
import type { Redis } from '../../db/redis.ts'
import { holding, LOADER, replicaOn } from './holding.ts'
import { until } from './process.ts'
import { look } from './redis.ts'
import { makeWorld, type Replica, type World } from './world.ts'

/** Cached records in Redis, as replicas write them and as others may change them. */

export const onRedis = () => ({ REDIS_URL: inject('redisUrl') })

export type RedisWorld = Awaited<ReturnType<typeof redisWorld>>

/** Replicas that share a Redis. Their entries are deleted when it stops. */
export async function redisWorld(settings: Record<string, string> = {}) {
  const redis = await look()
  const world = await makeWorld({ ...onRedis(), ...settings })
  const here = await world.replica()
  await connected(here)
  async function names() {
    const found: string[] = []
    for await (const page of redis.scanIterator({ MATCH: `assay:${world.keyRing.installationId}:*` }))
      found.push(...page)
    return found
  }
  async function stop() {
    await world.stop()
    for (const name of await names()) await redis.del(name)
    redis.destroy()
  }
  const nameOf = (customerId: string) => here.redisNames.record(customerId)
  /** The cached entry, once it exists. */
  async function entryOf(customerId: string): Promise<string> {
    await until('there is an entry', async () => (await redis.exists(nameOf(customerId))) === 1)
    return (await redis.get(nameOf(customerId)))!
  }
  const put = (customerId: string, entry: string | Buffer) => redis.set(nameOf(customerId), entry)
  const remove = (customerId: string) => redis.del(nameOf(customerId))
  return { world, here, redis, stop, names, nameOf, entryOf, put, remove }
}

/** A replica that has cached no customer yet, is connected to Redis, and counts its loads from the database. */
export async function coldReplica(world: World, throughRedis?: (redis: Redis) => Redis) {
  const database = holding(world.db)
  const replica = await replicaOn(world, database.db, onRedis(), throughRedis)
  await connected(replica)
  return { replica, database, loads: () => database.asked(LOADER) }
}

export const connected = ({ redis }: { redis: Redis | undefined }) =>
  until('the replica has its Redis', () =>
    redis!.set('assay:test:connected', '', 1).then(
      () => true,
      () => false,
    ),
  )

/** A customer with a token, whose record is in Redis. */
export async function shelved({ here, entryOf }: Pick<RedisWorld, 'here' | 'entryOf'>) {
  const customer = await here.signUp()
  const { access_token: token } = await customer.session()
  return { customer, token, entry: await entryOf(customer.id) }
}

/** The outcomes of a replica's reads from Redis. */
export async function outcomes({ request }: Pick<Replica, 'request'>, adminToken: string) {
  const { text } = await request('/metrics', { headers: { Authorization: `Bearer ${adminToken}` } })
  const found = text.matchAll(/^assay_record_cache_total\{outcome="(\w+)"\} (\d+)$/gm)
  return Object.fromEntries([...found].map(([, outcome, count]) => [outcome, Number(count)]))
}
