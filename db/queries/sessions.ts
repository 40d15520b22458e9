import type { Connection } from '../client.ts'
import { statement } from '../statement.ts'
import { auditedAs, OF_EACH_ROW } from './audit.ts'
import { type Acts, AFTER_DEATH, EVERYONES_EPOCH, PUBLISHED, publishing } from './change-feed.ts'
import { narrowed } from './policy.ts'

/** What a session's tokens are made of. Times are NumericDates. */
export interface SessionRow {
  id: string
  subject: string
  /** What the session has, as far as its customer's policy allows now. */
  scope: string
  /** JSON. */
  audience: string
  /** JSON. */
  ext: string | null
  /** Seconds that its next access token may live. */
  accessTtl: number
  customerEpoch: number
  subjectEpoch: number
  gen: number
  keyVersion: number
  rotatedAt: number
  expiresAt: number
}

export const seconds = (column: string) => `floor(extract(epoch from ${column}))::float8`

/** The columns of a SessionRow, by what `rules` has of the customer's (policy.ts). */
export const sessionRow = (
  rules: string,
) => `id, subject, ${narrowed('scope', `${rules}.allowed_scopes`)} as scope, audience, ext,
  least(access_ttl, ${rules}.most_ttl) as "accessTtl", customer_epoch as "customerEpoch",
  subject_epoch as "subjectEpoch", gen, key_version as "keyVersion",
  ${seconds('rotated_at')} as "rotatedAt", ${seconds('expires_at')} as "expiresAt"`

/**
 * Notes that clients were seen with what their session's last rotation gave them. Rows that are locked are passed over:
 * a lost confirmation only delays the detection of theft.
 */
export const confirmSessions = statement('confirmSessions')<{ seen: string }, { id: string }>(`
  with seen as (
    select * from jsonb_to_recordset(:seen::text::jsonb) as seen (customer_id text, id text, gen int)
  ),
  due as (
    select s.customer_id, s.id, s.gen
    from assay.sessions s join seen on seen.customer_id = s.customer_id and seen.id = s.id and seen.gen = s.gen
    where s.confirmed_at is null
    order by s.customer_id, s.id
    for update of s skip locked
  )
  update assay.sessions s set confirmed_at = assay.now()
  from due where s.customer_id = due.customer_id and s.id = due.id and s.gen = due.gen
  returning s.id`)

export interface SessionEnd {
  /** Which of the acts that share the statement it is. */
  n: number
  customer_id: string
  id: string
  actor: string
  ip: string | undefined
  user_agent: string | undefined
}

/**
 * Ends sessions (acts: SessionEnd[]). A row for each that was there and had not ended, with the change feed's number once all are
 * in. Their rows are locked in one order, or two such statements could wait for each other.
 */
export const endSessions = statement('endSessions')<Acts, { n: number; seq: number }>(`
  with acts as materialized (
    select * from jsonb_to_recordset(:acts::text::jsonb) as act (
      n int, customer_id text, id text, actor text, ip text, user_agent text)
  ),
  locked as materialized (
    select s.customer_id, s.id, s.subject, s.access_until
    from assay.sessions s
    where (s.customer_id, s.id) in (select customer_id, id from acts) and s.revoked_at is null
    order by s.customer_id, s.id
    for update
  ),
  due as materialized (
    select distinct on (customer_id, id) n, customer_id, id, subject, access_until, actor, ip, user_agent, assay.now() as t
    from locked join acts using (customer_id, id)
    order by customer_id, id, n
  ),
  ended as (
    update assay.sessions s set revoked_at = due.t from due
    where s.customer_id = due.customer_id and s.id = due.id
    returning 1
  ),
  audited as (${auditedAs(`'session.revoked'`, 'due', { subject: 'subject', session: 'id', ...OF_EACH_ROW })}),
  narrowed as (
    select 'session' as kind, customer_id, id as key, 0 as epoch, access_until + ${AFTER_DEATH} as dead_after from due
  ),
  ${publishing(['audited', 'ended'])}
  select n, ${PUBLISHED} from due`)

/** Of a session by that name: it could be refreshed now, or at another time as far as expiry goes. */
export const live = (s: string, at = 'assay.now()') => `${s}.revoked_at is null and ${s}.expires_at > ${at}
  and ${s}.customer_epoch >= ${EVERYONES_EPOCH}
  and exists (select from assay.customers c where c.id = ${s}.customer_id and c.epoch <= ${s}.customer_epoch)
  and not exists (
    select from assay.subject_epochs e
    where e.customer_id = ${s}.customer_id and e.subject = ${s}.subject and e.epoch > ${s}.subject_epoch)`

/** Of the generations asked, those whose refresh token could still be used: all from one snapshot. */
export const findRefreshable = statement('findRefreshable')<
  { asked: string },
  { id: string; gen: number; scope: string }
>(`
  select s.id, s.gen, ${narrowed('s.scope', 'customers.scopes')} as scope
  from jsonb_to_recordset(:asked::text::jsonb) as asked (customer_id text, id text, gen int)
  join assay.sessions s on s.customer_id = asked.customer_id and s.id = asked.id and s.gen = asked.gen
  join assay.customers on customers.id = s.customer_id and customers.state = 'active'
  where ${live('s')}`)

export interface SessionQuery {
  customerId: string
  subject: string | undefined
  /** The last session already seen. */
  beforeAt: Date | undefined
  beforeId: string | undefined
  limit: number
}

export interface ListedSession {
  id: string
  subject: string
  scope: string
  /** JSON. */
  audience: string
  gen: number
  issuedAt: Date
  rotatedAt: Date
  expiresAt: Date
  endsAt: Date
  ip: string | null
  userAgent: string | null
}

/** The sessions that go on, newest first. `condition`: a choice at run time would keep a prepared statement from its index. */
const listing = (condition = '') => `
  select id, subject, scope, audience, gen, issued_at as "issuedAt", rotated_at as "rotatedAt",
    expires_at as "expiresAt", ends_at as "endsAt", ip, user_agent as "userAgent"
  from assay.sessions
  where customer_id = :customerId ${condition} and ${live('sessions')}
    and (issued_at, id) < (coalesce(:beforeAt::timestamptz, 'infinity'), coalesce(:beforeId::text, ''))
  order by issued_at desc, id desc limit :limit`

const listSessionsOfCustomer = statement('listSessionsOfCustomer')<SessionQuery, ListedSession>(listing())
const listSessionsOfSubject = statement('listSessionsOfSubject')<SessionQuery, ListedSession>(
  listing('and subject = :subject'),
)

export const listSessions = (db: Pick<Connection, 'query'>, query: SessionQuery) =>
  (query.subject === undefined ? listSessionsOfCustomer : listSessionsOfSubject)(db, query)
