import { describe } from 'vitest'
import { findBinaries, startPostgres } from '../../faults/postgres.ts'
import { failoverFaults } from '../../faults/rows-failover.ts'
import { serverFaults } from '../../faults/rows-server.ts'
import { drillOnce } from '../../faults/short.ts'
import { makeStage } from '../../faults/stage.ts'

/** The change feed faults of the whole server, once each, on our own servers; `npm run faults` runs them ten times. */

describe.skipIf(!findBinaries())('servers of our own (skipped where Postgres has no binaries here)', () => {
  drillOnce([...serverFaults, ...failoverFaults], async () => {
    const server = await startPostgres()
    return makeStage({ serverUrl: server.url, server, replicas: 2 })
  })
})
