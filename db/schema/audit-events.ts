import { bigint, index, primaryKey, sql, text } from '../drizzle.ts'
import type { AuditType } from '../queries/audit.ts'
import { assay, instant } from './common.ts'

/** The sequence of the events' ids. */
export const auditEventIds = assay.sequence('audit_event_ids')

/**
 * Draws an id after the transaction has its own number. The sequencer needs this order: if it sees an id but not a
 * lower one, the transaction of the lower id was already running, with a number below the sequencer's next one.
 */
const nextId = sql`case when pg_current_xact_id() is not null then nextval('assay.audit_event_ids') end`

/**
 * The audit log. Each event is written by the same statement as the change it records. The table is
 * partitioned by month (in a migration, because drizzle can't express it) and has a default partition so
 * that an insert never fails for lack of one. There is no foreign key because the rows of an erased customer
 * stay.
 */
export const auditEvents = assay.table(
  'audit_events',
  {
    at: instant('at').notNull(),
    id: bigint('id', { mode: 'number' }).notNull().default(nextId),
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
    // The sequencer looks for events by their ids alone.
    index('audit_events_id').on(table.id),
    index('audit_events_customer').on(table.customerId, table.at, table.id),
    // Partial indexes for searches across customers. Frequent types are excluded so that issue and refresh
    // don't pay.
    index('audit_events_rare')
      .on(table.type, table.at, table.id)
      .where(sql`${table.type} not in ('token.issued', 'session.refreshed')`),
    index('audit_events_operator')
      .on(table.actor, table.at, table.id)
      .where(sql`${table.actor} like 'operator:%'`),
  ],
)
