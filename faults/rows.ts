import type { Fault } from './fault.ts'
import { backendFaults } from './rows-backends.ts'
import { connectFaults } from './rows-connect.ts'
import { failoverFaults } from './rows-failover.ts'
import { callFaults, linkFaults } from './rows-link.ts'
import { redisFaults } from './rows-redis.ts'
import { replicaFaults } from './rows-replica.ts'
import { serverFaults } from './rows-server.ts'
import { writerFaults } from './rows-writers.ts'

/** The change feed faults of HAZARDS.md. `held`: how long the open transaction stays open (ms). */
export const faults = (held: number): Fault[] => [
  ...backendFaults,
  ...linkFaults,
  ...connectFaults,
  ...callFaults,
  ...serverFaults,
  ...failoverFaults,
  ...redisFaults,
  ...replicaFaults,
  ...writerFaults(held),
]
