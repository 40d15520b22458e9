import { check, index, primaryKey, sql, text } from '../drizzle.ts'
import { assay, bytea, instant } from './common.ts'
import { customers } from './customers.ts'

export const TOKEN_PURPOSES = ['password_reset', 'email_verification', 'email_change'] as const

/** The primary key allows one open token for each customer and purpose: a new one replaces the old. */
export const oneTimeTokens = assay.table(
  'one_time_tokens',
  {
    /** Erasing a customer deletes its tokens. */
    customerId: text('customer_id')
      .notNull()
      .references(() => customers.id, { onDelete: 'cascade' }),
    purpose: text('purpose', { enum: TOKEN_PURPOSES }).notNull(),
    /** Only the SHA-256 of the token is kept: 256 random bits need no slow hash. */
    digest: bytea('digest').notNull(),
    /** The address that the token is sent to, which is the new one for `email_change`. */
    email: text('email').notNull(),
    expiresAt: instant('expires_at').notNull(),
  },
  table => [
    primaryKey({ columns: [table.customerId, table.purpose] }),
    index('one_time_tokens_expires_at').on(table.expiresAt),
    check(
      'one_time_tokens_purpose',
      sql`${table.purpose} in ('password_reset', 'email_verification', 'email_change')`,
    ),
  ],
)
