import { bigint, integer, text } from '../drizzle.ts'
import { assay, instant } from './common.ts'

/** Who polls the change feed, what it has applied and for how many milliseconds it may go on without a poll. */
export const replicas = assay.table('replicas', {
  id: text('id').primaryKey(),
  applied: bigint('applied', { mode: 'number' }).notNull(),
  maxStaleness: integer('max_staleness').notNull(),
  seenAt: instant('seen_at').notNull(),
  /** Of the program. */
  version: text('version').notNull().default(''),
})
