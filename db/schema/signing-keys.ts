import { check, index, integer, primaryKey, sql, text, uniqueIndex } from '../drizzle.ts'
import { assay, bytea, instant, now } from './common.ts'
import { customers } from './customers.ts'

export const ALGORITHMS = ['HS256', 'HS384', 'HS512', 'EdDSA', 'ES256', 'RS256'] as const

/**
 * There is one current signing key per customer and use; the partial unique index enforces it. An asymmetric key has a `next` key
 * beside it, whose public half is published before it signs.
 */
export const signingKeys = assay.table(
  'signing_keys',
  {
    customerId: text('customer_id')
      .notNull()
      .references(() => customers.id, { onDelete: 'cascade' }),
    use: text('use', { enum: ['access', 'refresh'] }).notNull(),
    version: integer('version').notNull(),
    state: text('state', { enum: ['next', 'current', 'previous', 'retired'] }).notNull(),
    alg: text('alg', { enum: ALGORITHMS }).notNull(),
    /** The secret of an HMAC, or a private JWK; of an asymmetric key that no longer signs, its public JWK. */
    sealedSecret: bytea('sealed_secret').notNull(),
    /** From this time on a `next` key signs without a request, because it has another algorithm than the current one. */
    signsAfter: instant('signs_after'),
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
    uniqueIndex('signing_keys_next').on(table.customerId).where(sql`${table.state} = 'next'`),
    check('signing_keys_use', sql`${table.use} in ('access', 'refresh')`),
    check('signing_keys_state', sql`${table.state} in ('next', 'current', 'previous', 'retired')`),
    check('signing_keys_alg', sql`${table.alg} in ('HS256', 'HS384', 'HS512', 'EdDSA', 'ES256', 'RS256')`),
    check(
      'signing_keys_refresh_alg',
      sql`${table.use} = 'access' or ${table.alg} in ('HS256', 'HS384', 'HS512')`,
    ),
    check('signing_keys_version', sql`${table.version} > 0`),
    // Indexes for maintenance jobs: keys waiting for retirement, and the oldest keys that still sign.
    index('signing_keys_previous_access')
      .on(table.replacedAt)
      .where(sql`${table.state} = 'previous' and ${table.use} = 'access'`),
    index('signing_keys_previous_refresh')
      .on(table.customerId, table.version)
      .where(sql`${table.state} = 'previous' and ${table.use} = 'refresh'`),
    index('signing_keys_signs_after').on(table.signsAfter).where(sql`${table.state} = 'next'`),
    index('signing_keys_age').on(table.createdAt).where(sql`${table.state} = 'current'`),
  ],
)
