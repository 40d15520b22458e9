import { setTimeout as sleep } from 'node:timers/promises'
import { until } from '../test/support/process.ts'
import { fault } from './fault.ts'
import type { Load } from './load.ts'
import { asking } from './redis.ts'
import { countAt, N, type Stage } from './stage.ts'
import { signUp, type Tenant } from './tenant.ts'

/**
 * Faults of Redis, which holds only copies and hints. All guarantees hold without Redis and with a Redis that returns old data.
 */

const counts = ({ replicas }: Stage, name: string) =>
  Promise.all(replicas.map(replica => countAt(replica, name)))

const FAILURES = 'assay_redis_failures_total'
const REFUSED = 'assay_record_cache_total{outcome="refused"}'

const rose = (now: number[], before: number[]) => now.map((count, replica) => count > before[replica]!)

export const redisFaults = [
  fault({
    name: 'Redis down',
    redis: true,
    lasts: 2 * N,
    async inject(stage, load: Load) {
      const tenant = await signUp(stage)
      const before = await counts(stage, FAILURES)
      await stage.redis!.kill()
      await endByRotation(stage, load, tenant)
      return before
    },
    heal: stage => stage.redis!.restart(),
    // Each replica tried to read the changed record there.
    felt: async (_, before, stage) => rose(await counts(stage, FAILURES), before).every(Boolean),
  }),
  fault({
    name: 'Redis answering old records',
    redis: true,
    lasts: 0,
    async inject(stage, load: Load) {
      const tenant = await signUp(stage)
      const before = await counts(stage, REFUSED)
      const refused = async () => rose(await counts(stage, REFUSED), before).some(Boolean)
      let written = 0
      // Timing is random: a replica must read the old record before it is overwritten.
      await until('an old record is refused', async () => {
        written += await putBack(stage, () => endByRotation(stage, load, tenant))
        return refused()
      })
      return written
    },
    heal() {},
    felt: (_, written) => written > 0,
  }),
]

/** Ends all of the tenant's access tokens at once, through a change of its record. */
async function endByRotation({ replicas }: Stage, load: Load, tenant: Tenant) {
  const tokens = await Promise.all([1, 2, 3].map(async () => load.adopt(await tenant.issue())))
  for (const replica of replicas.keys()) await Promise.all(tokens.map(token => load.verify(replica, token)))
  const rotated = tenant.rotateNow()
  await Promise.all(tokens.map(token => load.revoke(token, () => rotated)))
  for (const replica of replicas.keys()) await Promise.all(tokens.map(token => load.verify(replica, token)))
}

/** While `change` runs and for N after, repeatedly restores everything that Redis held before. Returns the number of rounds. */
async function putBack({ redis }: Stage, change: () => Promise<void>): Promise<number> {
  return asking(redis!.url, async client => {
    const old = new Map<string, string>()
    for (const name of await client.keys('assay:*:record:*')) old.set(name, (await client.get(name))!)
    let changing = true
    const changed = change()
      .then(() => sleep(N))
      .finally(() => {
        changing = false
      })
    let rounds = 0
    for (; changing; rounds++) {
      await Promise.all([...old].map(([name, value]) => client.set(name, value)))
      await sleep(1)
    }
    await changed
    return old.size > 0 ? rounds : 0
  })
}
