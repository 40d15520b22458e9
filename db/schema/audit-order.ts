import { bigint, boolean, check, customType, sql, uuid } from '../drizzle.ts'
import { assay, instant, now } from './common.ts'

const int8multirange = customType<{ data: string }>({ dataType: () => 'int8multirange' })
const xid8 = customType<{ data: string }>({ dataType: () => 'xid8' })

/**
 * The order of the audit's events. Each row is a batch of events that one run of the sequencer found: they have the positions
 * from `first_position` to `last_position`, in the order of the arrays. Positions are assigned after the events were committed,
 * without gaps, and never change. Arrays take 16 bytes for an event, where a row would take 70.
 */
export const auditBatches = assay.table('audit_batches', {
  lastPosition: bigint('last_position', { mode: 'number' }).primaryKey(),
  firstPosition: bigint('first_position', { mode: 'number' }).notNull(),
  at: instant('at').array().notNull(),
  ids: bigint('ids', { mode: 'number' }).array().notNull(),
  /**
   * Random. A cursor carries it, so that a position in an order that the database has lost (a failover, a restore) isn't mistaken
   * for a position in the order that replaced it.
   */
  mark: uuid('mark').notNull(),
})

/** The sequencer's state. One row: the primary key is a boolean that must be true. */
export const auditSequencer = assay.table(
  'audit_sequencer',
  {
    only: boolean('only').primaryKey().default(true),
    /** The last position that was assigned. */
    position: bigint('position', { mode: 'number' }).notNull().default(0),
    /** The highest id that was found. Each lower one has a position, is missing, or was given up. */
    lastId: bigint('last_id', { mode: 'number' }).notNull().default(0),
    /** Lower ids that were not found: their transactions are running, or have failed. */
    missing: int8multirange('missing').notNull().default('{}'),
    /** The missing ids that are given up once every transaction up to `barrier` has ended. */
    leaving: int8multirange('leaving').notNull().default('{}'),
    barrier: xid8('barrier'),
    /** Every event that was committed before this time has a position. */
    completeUntil: instant('complete_until').notNull().default(now),
  },
  table => [check('audit_sequencer_only', sql`${table.only}`)],
)
