import type { Database } from '../client.ts'
import { statement } from '../statement.ts'

/** Everything that is audited. */
export const AUDIT_TYPES = [
  'customer.signed_up',
  'customer.created',
  'customer.logged_in',
  'customer.login_failed',
  'customer.password_changed',
  'customer.password_set',
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
  'secret.rotated',
  'secret.retired',
  'server.created',
  'server.changed',
  'server.rotated',
  'server.deleted',
] as const

export type AuditType = (typeof AUDIT_TYPES)[number]

/** In SQL: the type itself, the column `type`, or a choice by `typeBy`. */
type TypeExpression = `'${AuditType}'` | 'type' | `case ${string}`

/** The type of an event, by the value of a column. */
export function typeBy(column: string, types: Record<string, AuditType>): TypeExpression {
  const cases = Object.entries(types).map(([value, type]) => `when '${value}' then '${type}'`)
  return `case ${column} ${cases.join(' ')} end`
}

/** Who did it, and from where. */
export interface AuditContext {
  /** `customer:<id>`, `api_key:<id>`, `session:<id>`, `maintenance` or `anonymous`. */
  actor: string
  ip: string | undefined
  userAgent: string | undefined
}

/**
 * The audit row of an act, as a part of the act's own statement: no audit, no act. `from` names the part that it follows,
 * with the columns `customer_id` and `t`; further columns by name. Who acted comes with the statement's parameters or,
 * where several acts share one, with each row (`origin`).
 */
export const auditedAs = (
  type: TypeExpression,
  from: string,
  columns: { subject?: string; session?: string; token?: string; detail?: string; origin?: string } = {},
) => `
  insert into assay.audit_events (at, customer_id, type, actor, subject, session_id, token_id, ip, user_agent, detail)
  select t, customer_id, ${type}, ${columns.origin ?? ':actor'}, ${columns.subject ?? 'null'},
    ${columns.session ?? 'null'}, ${columns.token ?? 'null'}, ${columns.origin ? 'ip, user_agent' : ':ip, :userAgent'},
    ${columns.detail ?? 'null'}
  from ${from}
  returning 1`

/** In auditedAs: `actor`, `ip` and `user_agent` are columns of `from`. */
export const OF_EACH_ROW = { origin: 'actor' }

/** Where a page of events ends, or begins. */
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

export interface AuditRow extends Pick<AuditContext, 'actor'> {
  at: Date
  id: number
  customerId: string | null
  type: AuditType
  subject: string | null
  sessionId: string | null
  tokenId: string | null
  ip: string | null
  userAgent: string | null
  /** JSON. */
  detail: string | null
}

/** Newest first. A bound that isn't given is one that everything is within: the index is used whatever is asked. */
const listing = (condition: string) => `
  select at, id, customer_id as "customerId", type, actor, subject, session_id as "sessionId", token_id as "tokenId", ip,
    user_agent as "userAgent", detail
  from assay.audit_events
  where ${condition} and (:type::text is null or type = :type)
    and at >= coalesce(:from::timestamptz, '-infinity')
    -- One bound from above, which the scan begins at: of two it would begin at one and pass over what the other keeps out.
    and (at, id) < (least(:beforeAt::timestamptz, :to::timestamptz, 'infinity'),
      case when :beforeAt::timestamptz < coalesce(:to::timestamptz, 'infinity') then :beforeId::bigint else 0 end)
  order by at desc, id desc limit :limit`

/** Of one customer. */
export const listEvents = statement('listEvents')<AuditQuery, AuditRow>(listing('customer_id = :customerId'))

/** Of all customers. */
export const listAllEvents = statement('listAllEvents')<AuditSpan, AuditRow>(listing('true'))

/** What happens all the time; the rest has an index of its own, which a statement uses that says the same. */
const FREQUENT = ['token.issued', 'session.refreshed'] satisfies AuditType[]
const RARE = `type not in (${FREQUENT.map(type => `'${type}'`).join(', ')})`

const listRareEvents = statement('listRareEvents')<AuditSpan & { type: AuditType }, AuditRow>(
  listing(`type = :type and ${RARE}`),
)

/** Of one type. */
export const listEventsOfType = (db: Pick<Database, 'query'>, query: AuditSpan & { type: AuditType }) =>
  (FREQUENT.some(each => each === query.type) ? listAllEvents : listRareEvents)(db, query)

/** Of one operator. */
export const listEventsOfOperator = statement('listEventsOfOperator')<
  AuditSpan & { actor: string },
  AuditRow
>(listing(`actor = :actor and actor like 'operator:%'`))
