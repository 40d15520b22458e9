import { text } from '../drizzle.ts'
import { assay, bytea, instant, now } from './common.ts'

/** A gateway or backend that asks about tokens. */
export const resourceServers = assay.table('resource_servers', {
  id: text('id').primaryKey(),
  name: text('name'),
  digest: bytea('digest').notNull(),
  /** The credential before the last rotation, and until when it may still be used. */
  previousDigest: bytea('previous_digest'),
  previousUntil: instant('previous_until'),
  /** JSON arrays of the customer ids and scopes that it is limited to. Null means no limit. */
  customers: text('customers'),
  scopes: text('scopes'),
  createdAt: instant('created_at').notNull().default(now),
  /** Digest of the Idempotency-Key of the request that created it, if there was one. */
  retryDigest: bytea('retry_digest').unique('resource_servers_retry'),
})
