import { index, primaryKey, text } from '../drizzle.ts'
import { assay, bytea, instant } from './common.ts'

/** Maps an Idempotency-Key to the session it started. Only digests are stored, never the key or the body. */
export const idempotencyKeys = assay.table(
  'idempotency_keys',
  {
    customerId: text('customer_id').notNull(),
    keyDigest: bytea('key_digest').notNull(),
    requestDigest: bytea('request_digest').notNull(),
    sessionId: text('session_id').notNull(),
    expiresAt: instant('expires_at').notNull(),
  },
  table => [
    primaryKey({ columns: [table.customerId, table.keyDigest] }),
    index('idempotency_keys_expires_at').on(table.expiresAt),
  ],
)
