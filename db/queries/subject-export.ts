import { alias, type SQL, sql } from '../drizzle.ts'
import { param, prepared } from '../prepared.ts'
import { auditEvents } from '../schema/audit-events.ts'
import { now } from '../schema/common.ts'
import { customers } from '../schema/customers.ts'
import { revocations } from '../schema/revocations.ts'
import { sessions } from '../schema/sessions.ts'
import { subjectEpochs } from '../schema/subject-epochs.ts'
import { type AuditContext, type AuditRow, auditInsert } from './audit.ts'

/**
 * Pages of everything that is stored about a subject of a customer. Each statement also inserts the event `subject.exported`, so
 * no page is read without one. Its first row always has `exportedAt`; `id` is null if the page is empty. No row: no such customer.
 */

interface Asked extends AuditContext {
  customerId: string
  subject: string
  /** The last row already seen. */
  beforeAt: Date | undefined
  beforeId: string | number | undefined
  limit: number
}

const s = alias(sessions, 's')
const e = alias(subjectEpochs, 'e')
const r = alias(revocations, 'r')
const a = alias(auditEvents, 'a')

/** `asked` is the customer, with the time of the export, and `audited` the inserted event. */
const exportParts = (part: 'sessions' | 'events'): SQL => sql`
  asked as materialized (
    select ${customers.id} as customer_id, ${now} as t from ${customers} where ${customers.id} = ${param('customerId')}
  ),
  audited as (${auditInsert('subject.exported', 'asked', {
    subject: sql`${param('subject')}::text`,
    detail: sql`json_build_object('part', ${sql.raw(`'${part}'`)}, 'first', ${param('beforeAt')}::timestamptz is null)::text`,
  })})`

export interface ExportedSession {
  exportedAt: Date
  /** The id of this page's own event. */
  eventId: number
  /** The subject's epoch, and when it was set: its tokens and sessions from before are revoked. */
  epoch: number | null
  epochChangedAt: Date | null
  /** The replicas keep the latest revocation of the subject in memory until then. */
  revocationKeptUntil: Date | null
  id: string | null
  scope: string
  audience: string
  claims: string | null
  accessTtl: number
  customerEpoch: number
  subjectEpoch: number
  gen: number
  keyVersion: number
  prevKeyVersion: number | null
  issuedAt: Date
  rotatedAt: Date
  prevRotatedAt: Date | null
  confirmedAt: Date | null
  renewedAt: Date | null
  accessUntil: Date
  expiresAt: Date
  endsAt: Date
  revokedAt: Date | null
  ip: string | null
  userAgent: string | null
}

/** Sessions of the subject, newest first, also those that have ended and are not deleted yet. */
export const exportSessions = prepared('exportSessions')<Asked, ExportedSession>(sql`
  with ${exportParts('sessions')},
  page as materialized (
    select * from ${sessions} as ${s}
    where ${s.customerId} = ${param('customerId')} and ${s.subject} = ${param('subject')}
      and (${s.issuedAt}, ${s.id}) < (coalesce(${param('beforeAt')}::timestamptz, 'infinity'), coalesce(${param('beforeId')}::text, ''))
    order by ${s.issuedAt} desc, ${s.id} desc
    limit ${param('limit')}::int
  )
  select asked.t as "exportedAt", audited.id as "eventId", ${e.epoch} as epoch, ${e.changedAt} as "epochChangedAt",
    (select max(${r.deadAfter}) from ${revocations} as ${r}
      where ${r.kind} = 'subject' and ${r.customerId} = asked.customer_id and ${r.key} = ${param('subject')}) as "revocationKeptUntil",
    page.id, page.scope, page.audience, page.claims, page.access_ttl as "accessTtl", page.customer_epoch as "customerEpoch",
    page.subject_epoch as "subjectEpoch", page.gen, page.key_version as "keyVersion", page.prev_key_version as "prevKeyVersion",
    page.issued_at as "issuedAt", page.rotated_at as "rotatedAt", page.prev_rotated_at as "prevRotatedAt",
    nullif(page.confirmed_at, '-infinity') as "confirmedAt", page.renewed_at as "renewedAt", page.access_until as "accessUntil",
    page.expires_at as "expiresAt", page.ends_at as "endsAt", page.revoked_at as "revokedAt", page.ip, page.user_agent as "userAgent"
  from asked
  cross join audited
  left join page on true
  left join ${subjectEpochs} as ${e} on ${e.customerId} = asked.customer_id and ${e.subject} = ${param('subject')}
  order by page.issued_at desc, page.id desc`)

/** The most events of the customer that one page reads: those of the subject have no separate index. */
const MAX_LOOKED_AT = 10_000

export type ExportedEvent = AuditRow & { exportedAt: Date }

/**
 * The events that name the subject among the next MAX_LOOKED_AT of the customer, newest first, and the last of those MAX_LOOKED_AT,
 * where the next page continues.
 */
export const exportEvents = prepared('exportEvents')<Asked, ExportedEvent>(sql`
  with ${exportParts('events')},
  next as materialized (
    select *, row_number() over (order by ${a.at} desc, ${a.id} desc) as place from ${auditEvents} as ${a}
    where ${a.customerId} = ${param('customerId')}
      and (${a.at}, ${a.id}) < (${param('beforeAt')}::timestamptz, ${param('beforeId')}::bigint)
    order by ${a.at} desc, ${a.id} desc
    limit ${sql.raw(String(MAX_LOOKED_AT))}
  ),
  page as materialized (
    select *, coalesce(subject = ${param('subject')}, false) as listed,
      place = ${sql.raw(String(MAX_LOOKED_AT))} as last_read from next
    where subject = ${param('subject')} or place = ${sql.raw(String(MAX_LOOKED_AT))}
    order by at desc, id desc
    limit ${param('limit')}::int
  )
  select asked.t as "exportedAt", page.at, page.id, page.customer_id as "customerId", page.type, page.actor, page.subject,
    page.session_id as "sessionId", page.token_id as "tokenId", page.ip, page.user_agent as "userAgent", page.detail, page.listed,
    page.last_read as "lastRead"
  from asked left join page on true
  order by page.at desc, page.id desc`)
