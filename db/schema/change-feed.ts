import { bigint, boolean, check, sql } from '../drizzle.ts'
import { assay } from './common.ts'

/**
 * The counter that every revoking statement increments as its last step. Its row lock makes commits happen
 * in the order of the numbers, which a sequence would not: a snapshot with seq = n contains every change up
 * to n.
 */
export const changeFeed = assay.table(
  'change_feed',
  {
    only: boolean('only').primaryKey().default(true),
    seq: bigint('seq', { mode: 'number' }).notNull().default(0),
  },
  table => [check('change_feed_only', sql`${table.only}`)],
)
