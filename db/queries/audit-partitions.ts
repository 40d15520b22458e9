import type { Connection, Database } from '../client.ts'
import { sql } from '../drizzle.ts'
import { param, prepared } from '../prepared.ts'

/**
 * Makes the partitions of this month and the three after it. A month stays in the default partition if that already has rows of
 * the month. No insert may ever fail for lack of a partition, and no insert may wait long, so the parent is locked only if that
 * is possible soon. The functions are in db/migrations/0002_audit_partitions.sql.
 */
export const makePartitions = (db: Pick<Connection, 'query'>) =>
  db.query('select assay.make_audit_partitions()')

/** The most events that one statement deletes: too few to slow down other statements. */
const BATCH_ROWS = 5_000

const detachOldPartition = prepared('detachOldPartition')<{ retention: number }, { name: string | null }>(
  sql`select assay.detach_audit_partition(${param('retention')}::float8) as name`,
)

const dropOldPartition = prepared('dropOldPartition')<{ retention: number }, { name: string | null }>(
  sql`select assay.drop_audit_partition(${param('retention')}::float8) as name`,
)

const deleteOldEvents = prepared('deleteOldEvents')<{ retention: number }, { deleted: number }>(
  sql`select assay.delete_audit_events(${param('retention')}::float8, ${sql.raw(`${BATCH_ROWS}`)}) as deleted`,
)

/**
 * Detaches the months that are older than `retention` (seconds, at least two days), drops those that were detached a week ago,
 * and deletes a batch of old events from the default partition. It does nothing while the clock is not trusted. A detachment
 * waits a second at most for the parent's lock, which blocks every act; the next round tries again. Returns the number of months
 * dropped and events deleted.
 */
export async function dropOldEvents(db: Pick<Database, 'query'>, retention: number): Promise<number> {
  let months = 0
  while ((await detachOldPartition(db, { retention }))[0]!.name !== null);
  while ((await dropOldPartition(db, { retention }))[0]!.name !== null) months++
  return months + (await deleteOldEvents(db, { retention }))[0]!.deleted
}
