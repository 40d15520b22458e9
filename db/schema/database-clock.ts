import { bigint, boolean, check, sql, text } from '../drizzle.ts'
import { assay, instant } from './common.ts'

/**
 * The last observation of the database's clock by any replica, and whether it has jumped. While `held_until` is set,
 * maintenance deletes nothing. One row, which db/migrations/0002_audit_partitions.sql makes.
 */
export const databaseClock = assay.table(
  'database_clock',
  {
    only: boolean('only').primaryKey().default(true),
    observedAt: instant('observed_at'),
    /** The wall clock of the replica that observed it (ms since 1970). */
    observedWall: bigint('observed_wall', { mode: 'number' }),
    heldUntil: instant('held_until'),
    jumpedAt: instant('jumped_at'),
    /** How far the clock jumped (ms); negative if it went back. */
    jump: bigint('jump', { mode: 'number' }),
  },
  table => [check('database_clock_only', sql`${table.only}`)],
)

/**
 * When the database's clock was last compared with each monotonic clock: one row for each boot of a machine that runs
 * replicas. It outlives the replica's process.
 */
export const clockBaselines = assay.table('clock_baselines', {
  /** The name of the monotonic clock. */
  id: text('id').primaryKey(),
  /** The reading of the monotonic clock (ms), and that of the database's clock at the same moment. */
  reading: bigint('reading', { mode: 'number' }).notNull(),
  observedAt: instant('observed_at').notNull(),
  /** The drift of the database's clock from it (ms). Slow drift is forgiven with time. */
  drift: bigint('drift', { mode: 'number' }).notNull().default(0),
})
