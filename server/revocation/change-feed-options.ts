import type { Connection } from '../../db/client.ts'
import type { Querier } from '../../db/queries/change-feed.ts'
import type { Clock } from '../lib/clock.ts'
import type { Log } from '../lib/logger.ts'
import type { RevocationList } from './revocation-list.ts'

export interface ChangeFeedOptions {
  /** A dedicated connection, with a timeout of at most N/2. */
  connection: Connection
  /** Loads the revocations that one poll can't return, with another deadline than the poll's. */
  db: Querier
  clock: Clock
  /** N, in milliseconds. */
  maxStaleness: number
  /** This process's random name among the replicas. */
  replica: string
  revocations: RevocationList
  /** Called when a customer's record has changed, or when all may have. */
  forget: { one(customerId: string): void; all(): void }
  /** Called after a local change, so that other replicas can be notified. */
  published: () => void
  log: Log
}
