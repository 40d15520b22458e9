import type { Database } from '../client.ts'
import { insertInto } from '../columns.ts'
import { and, desc, eq, getTableColumns, or, type SQL, type SQLWrapper, sql } from '../drizzle.ts'
import { param } from '../prepared.ts'
import { type Builder, type Params, query, type RowOf } from '../query.ts'
import { auditEvents } from '../schema/audit-events.ts'

/** Everything that is audited. */
export const AUDIT_TYPES = [
  'customer.signed_up',
  'customer.created',
  'customer.logged_in',
  'customer.login_failed',
  'customer.password_changed',
  'customer.password_change_failed',
  'customer.password_set',
  'customer.password_reset_requested',
  'customer.password_reset',
  'customer.email_verification_requested',
  'customer.email_verified',
  'customer.email_change_requested',
  'customer.email_change_failed',
  'customer.email_changed',
  'customer.changed',
  'customer.policy_set',
  'customer.disabled',
  'customer.enabled',
  'customer.erased',
  'customer.revoked',
  'everyone.revoked',
  'api_key.created',
  'api_key.deleted',
  'token.issued',
  'token.revoked',
  'session.refreshed',
  'session.replayed',
  'session.adopted',
  'session.reuse_detected',
  'session.revoked',
  'subject.revoked',
  'subject.exported',
  'secret.rotated',
  'secret.published',
  'secret.retired',
  'service.created',
  'service.changed',
  'service.rotated',
  'service.deleted',
  'installation.moved',
  'clock.jumped',
  'clock.confirmed',
] as const

export type AuditType = (typeof AUDIT_TYPES)[number]

/** The type of an event, by the value of a column. */
export function typeBy(column: SQL, types: Record<string, AuditType>): SQL {
  const cases = Object.entries(types).map(([value, type]) => `when '${value}' then '${type}'`)
  return sql`case ${column} ${sql.raw(cases.join(' '))} end`
}

/** The actor of an event, and the origin of its request. */
export interface AuditContext {
  /** `customer:<id>`, `api_key:<id>`, `session:<id>`, `maintenance` or `anonymous`. */
  actor: string
  ip: string | undefined
  userAgent: string | undefined
}

type AuditColumns = Partial<Record<'subject' | 'session' | 'token' | 'detail', SQL>>

/**
 * The audit event of an act, as a part of the act's own statement: no audit, no act. `from` names the part that it follows,
 * with the columns `customer_id` and `t`. `type` is a type or an expression. The statement's params name the actor. The part has
 * the event's `id`.
 */
export const auditInsert = (type: AuditType | SQL, from: string, columns: AuditColumns = {}) =>
  insertEvents(type, from, columns, { actor: param('actor'), ip: param('ip'), userAgent: param('userAgent') })

/**
 * Like `auditInsert`, for several acts in one statement: `from` also has the columns `actor`, `ip` and
 * `user_agent`.
 */
export const auditInsertOfEach = (type: AuditType | SQL, from: string, columns: AuditColumns = {}) =>
  insertEvents(type, from, columns, { actor: sql`actor`, ip: sql`ip`, userAgent: sql`user_agent` })

const none = sql`null`

const insertEvents = (
  type: AuditType | SQL,
  from: string,
  { subject = none, session = none, token = none, detail = none }: AuditColumns,
  { actor, ip, userAgent }: Record<keyof AuditContext, SQLWrapper>,
) => sql`
  ${insertInto(auditEvents, 'at', 'customerId', 'type', 'actor', 'subject', 'sessionId', 'tokenId', 'ip', 'userAgent', 'detail')}
  select t, customer_id, ${typeof type === 'string' ? sql.raw(`'${type}'`) : type}, ${actor},
    ${subject}, ${session}, ${token}, ${ip}, ${userAgent}, ${detail}
  from ${sql.raw(from)}
  returning id`

/** The bounds of a page of events. */
export interface AuditSpan {
  type: AuditType | undefined
  from: Date | undefined
  to: Date | undefined
  /** The last event already seen. */
  beforeAt: Date | undefined
  beforeId: number | undefined
  limit: number
}

export interface AuditQuery extends AuditSpan {
  customerId: string
}

/** `lastRead`: the next page continues behind this row, which is on this page only if `listed`. */
export type AuditRow = RowOf<typeof listEventsOfCustomer> & { listed?: boolean; lastRead?: boolean }

const { at, id, type, actor, customerId } = auditEvents

/** Newest first. A missing bound is replaced by one that excludes no event, so the index is used in every case. */
const listSpan = (db: Builder, span: Params<AuditSpan>, condition?: SQL) =>
  db
    .select()
    .from(auditEvents)
    .where(and(condition, sql`(${span.type}::text is null or ${type} = ${span.type})`, isIn(span)))
    .orderBy(desc(at), desc(id))
    .limit(span.limit)

const isIn = (span: Params<AuditSpan>) =>
  and(sql`${at} >= coalesce(${span.from}::timestamptz, '-infinity')`, isBefore(span))

/**
 * Combines the upper bounds into one, at which the scan starts. With two, the scan would start at one of them and skip all rows
 * that the other excludes.
 */
const isBefore = ({ beforeAt, beforeId, to }: Params<AuditSpan>) => sql`(${at}, ${id}) <
  (least(${beforeAt}::timestamptz, ${to}::timestamptz, 'infinity'),
  case when ${beforeAt}::timestamptz < coalesce(${to}::timestamptz, 'infinity') then ${beforeId}::bigint else 0 end)`

const listEventsOfCustomer = query('listEventsOfCustomer', (db, asked: Params<AuditQuery>) =>
  listSpan(db, asked, eq(customerId, asked.customerId)),
)

/** The most events that one page of one type reads: a customer may have millions of other types. */
const MAX_LOOKED_AT = 2_000

/**
 * The events of the type among the next MAX_LOOKED_AT, and the last one of these of any type, where the next page
 * continues.
 */
const listEventsOfCustomerAndType = query(
  'listEventsOfCustomerAndType',
  (db, asked: Params<AuditQuery & { type: AuditType }>) => {
    const next = db
      .select({
        ...getTableColumns(auditEvents),
        place: sql<number>`row_number() over ${NEWEST_FIRST}`.as('place'),
      })
      .from(auditEvents)
      .where(and(eq(customerId, asked.customerId), isIn(asked)))
      .orderBy(desc(at), desc(id))
      .limit(MAX_LOOKED_AT)
      .as('next')
    const { place, ...columns } = next._.selectedFields
    const listed = sql<boolean>`${next.type} = ${asked.type}`
    const lastRead = sql<boolean>`${eq(place, MAX_LOOKED_AT)}`
    return db
      .select({ ...columns, listed, lastRead })
      .from(next)
      .where(or(listed, lastRead))
      .orderBy(desc(next.at), desc(next.id))
      .limit(asked.limit)
  },
)

const NEWEST_FIRST = sql`(order by ${at} desc, ${id} desc)`

/** Lists the events of one customer. */
export const listEvents = (db: Pick<Database, 'values'>, asked: AuditQuery): Promise<AuditRow[]> =>
  asked.type === undefined
    ? listEventsOfCustomer(db, asked)
    : listEventsOfCustomerAndType(db, { ...asked, type: asked.type })

/** Lists the events of all customers. */
export const listAllEvents = query('listAllEvents', (db, asked: Params<AuditSpan>) => listSpan(db, asked))

/** The most frequent types. The other types have a separate index, which Postgres uses for queries that repeat its condition. */
const FREQUENT = ['token.issued', 'session.refreshed'] satisfies AuditType[]
export const isRare = sql`${type} not in (${sql.raw(FREQUENT.map(each => `'${each}'`).join(', '))})`

const listRareEvents = query('listRareEvents', (db, asked: Params<AuditSpan & { type: AuditType }>) =>
  listSpan(db, asked, and(eq(type, asked.type), isRare)),
)

/** Lists the events of one type. */
export const listEventsOfType = (db: Pick<Database, 'values'>, asked: AuditSpan & { type: AuditType }) =>
  (FREQUENT.some(each => each === asked.type) ? listAllEvents : listRareEvents)(db, asked)

/** Lists the events of one operator. */
export const listEventsOfOperator = query(
  'listEventsOfOperator',
  (db, asked: Params<AuditSpan & { actor: string }>) =>
    listSpan(db, asked, and(eq(actor, asked.actor), sql`${actor} like 'operator:%'`)),
)
