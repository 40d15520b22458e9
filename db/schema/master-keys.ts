import { text } from '../drizzle.ts'
import { assay, instant, now } from './common.ts'

/** The check value of each master key ever used here: a key ring that doesn't match is refused before anything is decrypted. */
export const masterKeys = assay.table('master_keys', {
  id: text('id').primaryKey(),
  checkValue: text('check_value').notNull(),
  createdAt: instant('created_at').notNull().default(now),
})
