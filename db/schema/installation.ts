import { bigint, boolean, check, sql, text } from '../drizzle.ts'
import { assay, bytea, instant, now } from './common.ts'

/**
 * The installation's random id and its installation key, encrypted by a master key. If the key can be decrypted, the master key
 * is the right one. The installation key stays the same when the master key changes. One row: the primary key is a boolean that
 * must be true.
 */
export const installation = assay.table(
  'installation',
  {
    only: boolean('only').primaryKey().default(true),
    id: text('id').notNull(),
    sealedKey: bytea('sealed_key').notNull(),
    /**
     * Minimum epoch for all customers: tokens and sessions with a lower one are revoked. Drawn from the epoch
     * sequence.
     */
    epoch: bigint('epoch', { mode: 'number' }).notNull().default(0),
    /** The database that it was last served from, as DATABASE_IDENTITY. Another one means that it was moved or copied. */
    servedFrom: text('served_from'),
    createdAt: instant('created_at').notNull().default(now),
  },
  table => [check('installation_only', sql`${table.only}`)],
)
