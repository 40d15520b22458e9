import type { Fault } from './fault.ts'
import { backendFaults } from './rows-backends.ts'
import { linkFaults } from './rows-link.ts'
import { serverFaults } from './rows-server.ts'
import { writerFaults } from './rows-writers.ts'

/**
 * The bus faults of HAZARDS.md; not yet here: an event loop that stalls, Redis down or answering old records, a standby
 * promoted. `held`: how long the open transaction stays open (ms).
 */
export const faults = (held: number): Fault[] => [
  ...backendFaults,
  ...linkFaults,
  ...serverFaults,
  ...writerFaults(held),
]
