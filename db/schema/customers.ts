import { sql } from 'drizzle-orm'
import { bigint, check, index, integer, primaryKey, text, uniqueIndex } from 'drizzle-orm/pg-core'
import { assay, bytea, instant, now } from './common.ts'

/** A tenant; in OAuth's terms, a client. */
export const customers = assay.table(
  'customers',
  {
    id: text('id').primaryKey(),
    /** Trimmed and in lower case. */
    email: text('email').notNull(),
    name: text('name'),
    passwordHash: text('password_hash').notNull(),
    state: text('state', { enum: ['active', 'disabled'] })
      .notNull()
      .default('active'),
    epoch: bigint('epoch', { mode: 'number' }).notNull().default(0),
    /** How many API keys it has: a count of their rows would be as old as the statement that counts. */
    apiKeys: integer('api_keys').notNull().default(0),
    /** How often its signing keys were rotated: who rotates must have seen the latest ones. */
    rotations: integer('rotations').notNull().default(0),
    /** Counts what an operator changed of it, so that two who change it at once don't undo each other's. */
    revision: integer('revision').notNull().default(1),
    // Its policy (policy.ts); null: as the server's settings have it. Times in seconds.
    scopes: text('scopes'),
    accessTokenTtl: integer('access_token_ttl'),
    maxAccessTokenTtl: integer('max_access_token_ttl'),
    refreshTokenTtl: integer('refresh_token_ttl'),
    sessionMaxTtl: integer('session_max_ttl'),
    refreshPolicy: text('refresh_policy', { enum: ['until_confirmed', 'grace_only', 'strict'] }),
    keyMaxAge: integer('key_max_age'),
    /** The data key that seals this customer's secrets, itself sealed by a master key. */
    sealedDataKey: bytea('sealed_data_key').notNull(),
    createdAt: instant('created_at').notNull().default(now),
  },
  table => [
    uniqueIndex('customers_email').on(table.email),
    // What operators search by begins with what they typed, which the index above can't find in every collation.
    index('customers_email_prefix').on(table.email.op('text_pattern_ops')),
    index('customers_name_prefix').on(sql`lower(${table.name}) text_pattern_ops`, table.id),
    index('customers_listed').on(table.createdAt, table.id),
    index('customers_key_max_age').on(table.id).where(sql`${table.keyMaxAge} is not null`),
    check('customers_id', sql`${table.id} ~ '^[a-z2-7]{16}$'`),
    check('customers_state', sql`${table.state} in ('active', 'disabled')`),
    check(
      'customers_refresh_policy',
      sql`${table.refreshPolicy} in ('until_confirmed', 'grace_only', 'strict')`,
    ),
  ],
)

/** One signing key per customer and use signs; the partial unique index says so, so that no code has to. */
export const signingKeys = assay.table(
  'signing_keys',
  {
    customerId: text('customer_id')
      .notNull()
      .references(() => customers.id, { onDelete: 'cascade' }),
    use: text('use', { enum: ['access', 'refresh'] }).notNull(),
    version: integer('version').notNull(),
    state: text('state', { enum: ['current', 'previous', 'retired'] }).notNull(),
    alg: text('alg', { enum: ['HS256', 'HS384', 'HS512'] }).notNull(),
    sealedSecret: bytea('sealed_secret').notNull(),
    createdAt: instant('created_at').notNull().default(now),
    /** When it stopped being the current one. */
    replacedAt: instant('replaced_at'),
    retiredAt: instant('retired_at'),
  },
  table => [
    primaryKey({ columns: [table.customerId, table.use, table.version] }),
    uniqueIndex('signing_keys_current')
      .on(table.customerId, table.use)
      .where(sql`${table.state} = 'current'`),
    check('signing_keys_use', sql`${table.use} in ('access', 'refresh')`),
    check('signing_keys_state', sql`${table.state} in ('current', 'previous', 'retired')`),
    check('signing_keys_alg', sql`${table.alg} in ('HS256', 'HS384', 'HS512')`),
    check('signing_keys_version', sql`${table.version} > 0`),
    // What maintenance looks for: those that wait to be retired, and the oldest that still sign.
    index('signing_keys_previous_access')
      .on(table.replacedAt)
      .where(sql`${table.state} = 'previous' and ${table.use} = 'access'`),
    index('signing_keys_previous_refresh')
      .on(table.customerId, table.version)
      .where(sql`${table.state} = 'previous' and ${table.use} = 'refresh'`),
    index('signing_keys_age').on(table.createdAt).where(sql`${table.state} = 'current'`),
  ],
)

/** Only the SHA-256 of the key is kept: 256 random bits need no slow hash. */
export const apiKeys = assay.table(
  'api_keys',
  {
    id: text('id').primaryKey(),
    customerId: text('customer_id')
      .notNull()
      .references(() => customers.id, { onDelete: 'cascade' }),
    name: text('name'),
    /** RFC 6749 3.3: what a token issued with it may carry; '*' is any, and none unasked. */
    scope: text('scope').notNull(),
    digest: bytea('digest').notNull(),
    createdAt: instant('created_at').notNull().default(now),
    expiresAt: instant('expires_at'),
    /** Written at most once a minute. */
    lastUsedAt: instant('last_used_at'),
    /** Of the Idempotency-Key that it was made under, if any. */
    retryDigest: bytea('retry_digest').unique('api_keys_retry'),
  },
  table => [index('api_keys_customer').on(table.customerId)],
)

/** A gateway or backend that asks about tokens. */
export const resourceServers = assay.table('resource_servers', {
  id: text('id').primaryKey(),
  name: text('name'),
  digest: bytea('digest').notNull(),
  /** The credential before the last rotation, and until when it may still be used. */
  previousDigest: bytea('previous_digest'),
  previousUntil: instant('previous_until'),
  /** JSON of customers' ids, and of scopes, that it is limited to; null: all. */
  customers: text('customers'),
  scopes: text('scopes'),
  createdAt: instant('created_at').notNull().default(now),
  /** Of the Idempotency-Key that it was made under, if any. */
  retryDigest: bytea('retry_digest').unique('resource_servers_retry'),
})
