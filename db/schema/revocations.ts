import { bigint, check, index, sql, text } from '../drizzle.ts'
import { assay, instant } from './common.ts'

/** Revocations in the order of the change feed. A row is deleted once no live token can be affected by it. */
export const revocations = assay.table(
  'revocations',
  {
    seq: bigint('seq', { mode: 'number' }).primaryKey(),
    kind: text('kind', { enum: ['token', 'session', 'subject', 'customer', 'everyone'] }).notNull(),
    /** Empty for everyone. */
    customerId: text('customer_id').notNull(),
    /** The jti, sid or subject. It is empty for a customer, whose whole record is then reloaded. */
    key: text('key').notNull().default(''),
    /** The new epoch of the subject, or of everyone: tokens that carry a lower one are refused. */
    epoch: bigint('epoch', { mode: 'number' }).notNull().default(0),
    deadAfter: instant('dead_after').notNull(),
  },
  table => [
    index('revocations_dead_after').on(table.deadAfter),
    // A revocation of a subject or a customer replaces the one before, and the live ones of a customer are counted.
    index('revocations_replaced')
      .on(table.customerId, table.kind, table.key, table.deadAfter)
      .where(sql`${table.kind} in ('subject', 'customer')`),
    check('revocations_kind', sql`${table.kind} in ('token', 'session', 'subject', 'customer', 'everyone')`),
  ],
)
