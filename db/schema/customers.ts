import { bigint, check, index, integer, sql, text, uniqueIndex } from '../drizzle.ts'
import { assay, bytea, instant, now } from './common.ts'

/** The algorithms that can sign access tokens. */
export const SIGNING_ALGS = ['HS512', 'EdDSA', 'ES256', 'RS256'] as const

export const REFRESH_POLICIES = ['until_confirmed', 'grace_only', 'strict', 'reusable'] as const

/** The limits of one customer's tokens and sessions. Null: the server's settings apply. Times in seconds. */
export const policy = {
  /** RFC 6749 3.3: the only scopes that its tokens may have, besides Assay's own. */
  scopes: text('scopes'),
  accessTokenTtl: integer('access_token_ttl'),
  maxAccessTokenTtl: integer('max_access_token_ttl'),
  refreshTokenTtl: integer('refresh_token_ttl'),
  sessionMaxTtl: integer('session_max_ttl'),
  refreshPolicy: text('refresh_policy', { enum: REFRESH_POLICIES }),
  /** 0: never rotated by age. */
  keyMaxAge: integer('key_max_age'),
  tokensPerMinute: integer('tokens_per_minute'),
  /** Null: HS512. */
  signingAlg: text('signing_alg', { enum: SIGNING_ALGS }),
}

/** A tenant; in OAuth's terms, a client. */
export const customers = assay.table(
  'customers',
  {
    id: text('id').primaryKey(),
    /** Trimmed and in lower case. */
    email: text('email').notNull(),
    /**
     * Null until the customer has shown that it receives mail at this address. Every change of the address by an operator clears
     * it.
     */
    emailVerifiedAt: instant('email_verified_at'),
    name: text('name'),
    passwordHash: text('password_hash').notNull(),
    state: text('state', { enum: ['active', 'disabled'] })
      .notNull()
      .default('active'),
    epoch: bigint('epoch', { mode: 'number' }).notNull().default(0),
    /**
     * The number of API keys. Counting the rows instead would use the snapshot of the statement, which may be
     * outdated.
     */
    apiKeys: integer('api_keys').notNull().default(0),
    /** The number of signing key rotations. A rotation fails unless it has read the latest keys. */
    rotations: integer('rotations').notNull().default(0),
    /** Incremented by each operator's change, so that concurrent changes don't overwrite each other. */
    revision: integer('revision').notNull().default(1),
    ...policy,
    /** The data key that encrypts this customer's secrets, itself encrypted by a master key. */
    sealedDataKey: bytea('sealed_data_key').notNull(),
    /**
     * No access token is issued that expires later. It is set ahead of the tokens, so that it changes once in ten minutes at
     * most, and it never becomes lower. The revocation of a subject is kept until then.
     */
    issuedUntil: instant('issued_until').notNull().default(sql`'-infinity'`),
    createdAt: instant('created_at').notNull().default(now),
  },
  table => [
    uniqueIndex('customers_email').on(table.email),
    // Operators search by prefix, which the unique index above supports only in some collations.
    index('customers_email_prefix').on(table.email.op('text_pattern_ops')),
    index('customers_name_prefix').on(sql`lower(${table.name}) text_pattern_ops`, table.id),
    index('customers_listed').on(table.createdAt, table.id),
    index('customers_key_max_age').on(table.id).where(sql`${table.keyMaxAge} is not null`),
    check('customers_id', sql`${table.id} ~ '^[a-z2-7]{16}$'`),
    check('customers_state', sql`${table.state} in ('active', 'disabled')`),
    check(
      'customers_refresh_policy',
      sql`${table.refreshPolicy} in ('until_confirmed', 'grace_only', 'strict', 'reusable')`,
    ),
    check('customers_signing_alg', sql`${table.signingAlg} in ('HS512', 'EdDSA', 'ES256', 'RS256')`),
  ],
)
