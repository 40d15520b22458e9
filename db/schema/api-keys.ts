import { index, text } from '../drizzle.ts'
import { assay, bytea, instant, now } from './common.ts'
import { customers } from './customers.ts'

/** Only the SHA-256 of the key is kept: 256 random bits need no slow hash. */
export const apiKeys = assay.table(
  'api_keys',
  {
    id: text('id').primaryKey(),
    customerId: text('customer_id')
      .notNull()
      .references(() => customers.id, { onDelete: 'cascade' }),
    name: text('name'),
    /** RFC 6749 3.3: the scopes that a token issued with it may have; '*' allows any, and grants none by default. */
    scope: text('scope').notNull(),
    digest: bytea('digest').notNull(),
    createdAt: instant('created_at').notNull().default(now),
    expiresAt: instant('expires_at'),
    /** Written at most once a minute. */
    lastUsedAt: instant('last_used_at'),
    /** Digest of the Idempotency-Key of the request that created it, if there was one. */
    retryDigest: bytea('retry_digest').unique('api_keys_retry'),
  },
  table => [index('api_keys_customer').on(table.customerId)],
)
