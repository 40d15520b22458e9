import { bigint, check, index, integer, primaryKey, sql, text } from '../drizzle.ts'
import { assay, instant } from './common.ts'

/**
 * One row per session for its whole life, updated in place (a migration sets fillfactor 70). A refresh token is derived from the
 * row alone, so that the same string can be made again and no token is stored.
 *
 * No foreign key to customers: its check would lock the customer's row at every start of a session. A session without a customer
 * can't be refreshed, because the refresh joins the two.
 */
export const sessions = assay.table(
  'sessions',
  {
    customerId: text('customer_id').notNull(),
    id: text('id').notNull(),
    subject: text('subject').notNull(),
    scope: text('scope').notNull(),
    /** JSON of the aud claim: a string or an array of strings. */
    audience: text('audience').notNull(),
    /** JSON of the caller's own claims. */
    claims: text('claims'),
    /** Seconds that each of its access tokens lives. */
    accessTtl: integer('access_ttl').notNull(),
    customerEpoch: bigint('customer_epoch', { mode: 'number' }).notNull(),
    subjectEpoch: bigint('subject_epoch', { mode: 'number' }).notNull(),
    /** The generation of the refresh token that is next to be used; the first is 1. */
    gen: integer('gen').notNull().default(1),
    issuedAt: instant('issued_at').notNull(),
    /** When the current generation was made, and the one before it. */
    rotatedAt: instant('rotated_at').notNull(),
    prevRotatedAt: instant('prev_rotated_at'),
    /**
     * When the client was first seen with the tokens of the last rotation. A rotation sets it at once if its policy
     * didn't wait for that: to its own time under `grace_only`, and to `-infinity` under `strict`, which left the
     * token before it no grace. So a token that a policy ended stays ended under a later, looser one.
     */
    confirmedAt: instant('confirmed_at'),
    /** When a refresh last kept its token instead of rotating it. */
    renewedAt: instant('renewed_at'),
    keyVersion: integer('key_version').notNull(),
    prevKeyVersion: integer('prev_key_version'),
    /** The latest exp of an access token issued in it. */
    accessUntil: instant('access_until').notNull(),
    /** Idle expiry. It is in no token, so that a refresh can extend it without another token. */
    expiresAt: instant('expires_at').notNull(),
    /** Absolute expiry, which no refresh extends: the `exp` of each of its refresh tokens. */
    endsAt: instant('ends_at').notNull(),
    revokedAt: instant('revoked_at'),
    ip: text('ip'),
    userAgent: text('user_agent'),
  },
  table => [
    primaryKey({ columns: [table.customerId, table.id] }),
    index('sessions_subject').on(table.customerId, table.subject, table.issuedAt),
    index('sessions_listed').on(table.customerId, table.issuedAt, table.id),
    // There is no index on expires_at, which would prevent HOT updates on refresh. Maintenance finds dead sessions by
    // reading the table in the order of its primary key, a window at a time.
    check('sessions_gen', sql`${table.gen} > 0`),
    check('sessions_ends', sql`${table.expiresAt} <= ${table.endsAt}`),
  ],
)
