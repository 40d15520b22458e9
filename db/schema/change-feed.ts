import { bigint, boolean, check, sql } from '../drizzle.ts'
import { assay } from './common.ts'

/**
 * The counter that every narrowing act moves as its last step. Its row lock makes the order of commits the order of
 * numbers, which a sequence would not: whoever sees seq = n sees every change up to n.
 */
export const changeFeed = assay.table(
  'change_feed',
  {
    only: boolean('only').primaryKey().default(true),
    seq: bigint('seq', { mode: 'number' }).notNull().default(0),
  },
  table => [check('change_feed_only', sql`${table.only}`)],
)
