import { bigint } from '../drizzle.ts'
import { assay } from './common.ts'

/**
 * One row with the counter that every revoking statement increments as its last step. Its row lock makes commits happen in the
 * order of the numbers, which a sequence would not: a snapshot with seq = n contains every change up to n. The number is the key,
 * so that the newest version of the row is found by the index (`COUNTER` in queries/position.ts).
 */
export const changeFeed = assay.table('change_feed', {
  seq: bigint('seq', { mode: 'number' }).primaryKey().default(0),
})
