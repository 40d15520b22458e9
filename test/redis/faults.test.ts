import { inject } from 'vitest'
import { startRedis } from '../../faults/redis.ts'
import { redisFaults } from '../../faults/rows-redis.ts'
import { drillOnce } from '../../faults/short.ts'
import { makeStage } from '../../faults/stage.ts'

/** The faults of Redis, once each, on our own server; `npm run faults` runs them ten times. */

drillOnce(redisFaults, async () =>
  makeStage({ serverUrl: inject('databaseUrl'), redis: await startRedis(), replicas: 2 }),
)
