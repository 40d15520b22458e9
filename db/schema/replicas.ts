import { bigint, integer, text } from '../drizzle.ts'
import { assay, instant } from './common.ts'

/** Replicas that poll the change feed: the last change applied, and the maximum time between polls (ms). */
export const replicas = assay.table('replicas', {
  id: text('id').primaryKey(),
  applied: bigint('applied', { mode: 'number' }).notNull(),
  maxStaleness: integer('max_staleness').notNull(),
  seenAt: instant('seen_at').notNull(),
  /** The program's version. */
  version: text('version').notNull().default(''),
})
