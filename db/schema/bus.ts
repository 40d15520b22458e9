import { sql } from 'drizzle-orm'
import { bigint, boolean, check, index, integer, text } from 'drizzle-orm/pg-core'
import { assay, bytea, instant, now } from './common.ts'

/**
 * The installation's random id and its installation key, sealed by a master key. Opening it proves the master key; it
 * stays when the master changes. One row: the primary key is a boolean that must be true.
 */
export const installation = assay.table(
  'installation',
  {
    only: boolean('only').primaryKey().default(true),
    id: text('id').notNull(),
    sealedKey: bytea('sealed_key').notNull(),
    /** Of everyone: whatever began under a lower one is dead, whosever it is. From the sequence of all epochs. */
    epoch: bigint('epoch', { mode: 'number' }).notNull().default(0),
    createdAt: instant('created_at').notNull().default(now),
  },
  table => [check('installation_only', sql`${table.only}`)],
)

/** The check value of each master key ever used here: a ring that doesn't match is refused before anything is opened. */
export const masterKeys = assay.table('master_keys', {
  id: text('id').primaryKey(),
  checkValue: text('check_value').notNull(),
  createdAt: instant('created_at').notNull().default(now),
})

/**
 * The counter that every narrowing act moves as its last step. Its row lock makes the order of commits the order of
 * numbers, which a sequence would not: whoever sees seq = n sees every change up to n.
 */
export const changeFeed = assay.table(
  'change_feed',
  {
    only: boolean('only').primaryKey().default(true),
    seq: bigint('seq', { mode: 'number' }).notNull().default(0),
  },
  table => [check('change_feed_only', sql`${table.only}`)],
)

/** What narrowed what is accepted, by the change feed's number. A row leaves once no live token can be concerned. */
export const revocations = assay.table(
  'revocations',
  {
    seq: bigint('seq', { mode: 'number' }).primaryKey(),
    kind: text('kind', { enum: ['token', 'session', 'subject', 'customer', 'everyone'] }).notNull(),
    /** Empty for everyone. */
    customerId: text('customer_id').notNull(),
    /** The jti, sid or subject; empty for a customer: its record is then read anew, whatever changed in it. */
    key: text('key').notNull().default(''),
    /** The new epoch of the subject, or of everyone: tokens that carry a lower one are refused. */
    epoch: bigint('epoch', { mode: 'number' }).notNull().default(0),
    deadAfter: instant('dead_after').notNull(),
  },
  table => [
    index('revocations_dead_after').on(table.deadAfter),
    check('revocations_kind', sql`${table.kind} in ('token', 'session', 'subject', 'customer', 'everyone')`),
  ],
)

/** Who polls the change feed, what it has applied and for how many milliseconds it may go on without a poll. */
export const replicas = assay.table('replicas', {
  id: text('id').primaryKey(),
  applied: bigint('applied', { mode: 'number' }).notNull(),
  maxStaleness: integer('max_staleness').notNull(),
  seenAt: instant('seen_at').notNull(),
  /** Of the program. */
  version: text('version').notNull().default(''),
})
