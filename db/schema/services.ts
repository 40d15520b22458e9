import { text } from '../drizzle.ts'
import { assay, bytea, instant, now } from './common.ts'

/** A gateway or backend with a credential of its own, which serves many customers. */
export const services = assay.table('services', {
  id: text('id').primaryKey(),
  /** The audit identifies the service by its name, so the name never changes. */
  name: text('name').notNull().unique('services_name'),
  digest: bytea('digest').notNull(),
  /** The credential before the last rotation, and until when it may still be used. */
  previousDigest: bytea('previous_digest'),
  previousUntil: instant('previous_until'),
  /** JSON array of its rights (server/clients/rights.ts). */
  may: text('may').notNull(),
  /** JSON arrays of the customer ids and scopes that it is limited to. Null means no limit. */
  customers: text('customers'),
  scopes: text('scopes'),
  createdAt: instant('created_at').notNull().default(now),
  /** Written at most once a minute. */
  lastUsedAt: instant('last_used_at'),
  /** Digest of the Idempotency-Key of the request that created it, if there was one. */
  retryDigest: bytea('retry_digest').unique('services_retry'),
})
