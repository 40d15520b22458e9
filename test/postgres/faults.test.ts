import { inject } from 'vitest'
import { faults } from '../../faults/rows.ts'
import { drillOnce } from '../../faults/short.ts'
import { makeStage } from '../../faults/stage.ts'

/**
 * The change feed faults of connections, processes and other writers, once each, with the open transaction for 3 s; `npm
 * run faults` runs them ten times.
 */

drillOnce(
  faults(3_000).filter(({ ownServer, redis }) => !ownServer && !redis),
  () => makeStage({ serverUrl: inject('databaseUrl'), replicas: 2 }),
)
