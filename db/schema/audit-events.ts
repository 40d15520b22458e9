import { bigint, index, primaryKey, sql, text } from '../drizzle.ts'
import type { AuditType } from '../queries/audit.ts'
import { assay, instant } from './common.ts'

/**
 * Every act, written in the act's own statement. Partitioned by month (a migration says so: drizzle can't), with a
 * default partition, because no insert may fail for want of one. No foreign key: an erased customer's rows stay.
 */
export const auditEvents = assay.table(
  'audit_events',
  {
    at: instant('at').notNull(),
    id: bigint('id', { mode: 'number' }).generatedAlwaysAsIdentity(),
    customerId: text('customer_id'),
    type: text('type').$type<AuditType>().notNull(),
    actor: text('actor').notNull(),
    subject: text('subject'),
    sessionId: text('session_id'),
    tokenId: text('token_id'),
    ip: text('ip'),
    userAgent: text('user_agent'),
    /** JSON. */
    detail: text('detail'),
  },
  table => [
    primaryKey({ columns: [table.at, table.id] }),
    index('audit_events_customer').on(table.customerId, table.at, table.id),
    // For who looks at all customers. What happens all the time is found by its time: no issue and no refresh pays for these.
    index('audit_events_rare')
      .on(table.type, table.at, table.id)
      .where(sql`${table.type} not in ('token.issued', 'session.refreshed')`),
    index('audit_events_operator')
      .on(table.actor, table.at, table.id)
      .where(sql`${table.actor} like 'operator:%'`),
  ],
)
