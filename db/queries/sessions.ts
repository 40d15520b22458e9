import type { Connection } from '../client.ts'
import { bare, type Columns } from '../columns.ts'
import {
  type AnyPgColumn,
  alias,
  and,
  desc,
  eq,
  getTableColumns,
  or,
  type SQL,
  type SQLWrapper,
  sql,
} from '../drizzle.ts'
import { param, prepared } from '../prepared.ts'
import { type Builder, type Params, query, type RowOf } from '../query.ts'
import { now } from '../schema/common.ts'
import { customers } from '../schema/customers.ts'
import { sessions } from '../schema/sessions.ts'
import { subjectEpochs } from '../schema/subject-epochs.ts'
import { auditInsertOfEach } from './audit.ts'
import {
  type Act,
  type Acts,
  EVERYONES_EPOCH,
  publishedColumns,
  publishParts,
  SESSION_END,
} from './change-feed.ts'
import { allowedScopes } from './policy.ts'

type Session = typeof sessions.$inferSelect

/**
 * A session's tokens are made from this. Its scope is limited by its customer's current policy, and `accessTtl` is
 * the lifetime of its next access token. Times are NumericDates.
 */
export interface SessionRow
  extends Pick<
      Session,
      'id' | 'subject' | 'scope' | 'audience' | 'claims' | 'accessTtl' | 'gen' | 'keyVersion'
    >,
    Pick<Session, 'customerEpoch' | 'subjectEpoch'> {
  rotatedAt: number
  expiresAt: number
  endsAt: number
}

/** A time as a NumericDate. */
export const seconds = (time: SQLWrapper) => sql<number>`floor(extract(epoch from ${time}))::float8`

/** The columns of a SessionRow, from a part with the session's own columns and one, `rules`, with its policyColumns. */
export const sessionColumns = (rules: string) => {
  const rule = (name: string) => sql.raw(`${rules}.${name}`)
  return sql`id, subject, ${allowedScopes(sql`scope`, rule('allowed_scopes'))} as scope, audience, claims,
  least(access_ttl, ${rule('most_ttl')}) as "accessTtl", customer_epoch as "customerEpoch",
  subject_epoch as "subjectEpoch", gen, key_version as "keyVersion",
  ${seconds(sql`rotated_at`)} as "rotatedAt", ${seconds(sql`expires_at`)} as "expiresAt",
  ${seconds(sql`ends_at`)} as "endsAt"`
}

const s = alias(sessions, 's')
const c = alias(customers, 'c')
const e = alias(subjectEpochs, 'e')

/** A client that was seen with the tokens of its session's rotation to `gen`. */
export interface Seen {
  customer_id: string
  id: string
  gen: number
}

/**
 * Stores that clients were seen with the tokens of their session's last rotation (seen: Seen[]), and returns those
 * whose row was locked. `alone`: one of them, which waits for its row.
 *
 * 1. `seen` are the generations that clients were seen with.
 * 2. `unconfirmed` are those that are still their session's latest, and not confirmed yet.
 * 3. `due` locks their rows, except those that are locked already.
 * 4. `confirmed` confirms them.
 */
const confirmSql = (alone: boolean): SQL => sql`
  with seen as (
    select * from jsonb_to_recordset(${param('seen')}::text::jsonb) as seen (customer_id text, id text, gen int)
  ),
  unconfirmed as materialized (
    select ${s.customerId}, ${s.id}, ${s.gen}
    from ${sessions} as ${s}
    join seen on seen.customer_id = ${s.customerId} and seen.id = ${s.id} and seen.gen = ${s.gen}
    where ${s.confirmedAt} is null
  ),
  due as materialized (
    select ${s.customerId}, ${s.id}, ${s.gen}
    from ${sessions} as ${s}
    join unconfirmed as u on u.customer_id = ${s.customerId} and u.id = ${s.id} and u.gen = ${s.gen}
    where ${s.confirmedAt} is null
    order by ${s.customerId}, ${s.id}
    for update of ${s} ${alone ? sql`` : sql`skip locked`}
  ),
  confirmed as (
    update ${sessions} as ${s} set ${bare(s.confirmedAt)} = ${now}
    from due where ${s.customerId} = due.customer_id and ${s.id} = due.id and ${s.gen} = due.gen
  )
  select * from unconfirmed ${alone ? sql`where false` : sql`except select * from due`}`

/** Skips locked rows: waiting for one would keep the rows of all other sessions locked. */
export const confirmSessions = prepared('confirmSessions')<{ seen: string }, Seen>(confirmSql(false))

/** Confirms one session (seen: one), and waits for its row. */
export const confirmSession = prepared('confirmSession')<{ seen: string }, never>(confirmSql(true))

export interface SessionEnd extends Act {
  /** The number of the act among those that share the statement. */
  n: number
  id: string
}

/**
 * Ends sessions (acts: SessionEnd[]). Returns a row for each that existed and had not ended, with the change feed's number once
 * all are written.
 *
 * 1. `acts` are the sessions to end, in the order of the requests.
 * 2. `locked` locks their rows in one order, because otherwise two such statements could wait for each other.
 * 3. `due` takes the first act for each row, and the time after the lock.
 * 4. `ended`, `audited` and `changes` end, audit and publish them.
 */
export const endSessions = prepared('endSessions')<Acts, { n: number; seq: number }>(sql`
  with acts as materialized (
    select * from jsonb_to_recordset(${param('acts')}::text::jsonb) as act (
      n int, customer_id text, id text, actor text, ip text, user_agent text)
  ),
  locked as materialized (
    select ${s.customerId}, ${s.id}, ${s.subject}, ${s.accessUntil}
    from ${sessions} as ${s}
    where (${s.customerId}, ${s.id}) in (select customer_id, id from acts) and ${s.revokedAt} is null
    order by ${s.customerId}, ${s.id}
    for update
  ),
  due as materialized (
    select distinct on (customer_id, id) n, customer_id, id, subject, access_until, actor, ip, user_agent, ${now} as t
    from locked join acts using (customer_id, id)
    order by customer_id, id, n
  ),
  ended as (
    update ${sessions} as ${s} set ${bare(s.revokedAt)} = due.t from due
    where ${s.customerId} = due.customer_id and ${s.id} = due.id
    returning 1
  ),
  audited as (${auditInsertOfEach('session.revoked', 'due', { subject: sql`subject`, session: sql`id` })}),
  ${publishParts('session', 'due', ['audited', 'ended'], SESSION_END)}
  select n, ${publishedColumns} from due`)

/** Whether the session `of` can be refreshed now. `at` replaces the time for the idle expiry only. */
export const isLive = (
  of: Columns<typeof sessions>,
  at: SQL = now,
) => sql<boolean>`${of.revokedAt} is null and ${of.expiresAt} > ${at}
  and ${of.customerEpoch} >= ${EVERYONES_EPOCH}
  and exists (select from ${customers} as ${c} where ${c.id} = ${of.customerId} and ${c.epoch} <= ${of.customerEpoch})
  and not exists (
    select from ${subjectEpochs} as ${e}
    where ${e.customerId} = ${of.customerId} and ${e.subject} = ${of.subject} and ${e.epoch} > ${of.subjectEpoch})`

/** A session whose current refresh token could be used now. `expiresAt` is a NumericDate. */
export interface Refreshable {
  id: string
  gen: number
  scope: string
  expiresAt: number
}

/** Selects those of the given generations whose refresh token could still be used, all from one snapshot. */
export const findRefreshable = prepared('findRefreshable')<{ asked: string }, Refreshable>(sql`
  select ${s.id}, ${s.gen}, ${allowedScopes(s.scope, customers.scopes)} as scope,
    ${seconds(s.expiresAt)} as "expiresAt"
  from jsonb_to_recordset(${param('asked')}::text::jsonb) as asked (customer_id text, id text, gen int)
  join ${sessions} as ${s} on ${s.customerId} = asked.customer_id and ${s.id} = asked.id and ${s.gen} = asked.gen
  join ${customers} on ${customers.id} = ${s.customerId} and ${customers.state} = 'active'
  where ${isLive(s)}`)

/** A page of a list whose newest rows come first. */
export interface Page {
  /** The last row already seen. */
  beforeAt: Date | undefined
  beforeId: string | undefined
  limit: number
}

export interface SessionQuery extends Page {
  customerId: string
  subject: string | undefined
}

export type ListedSession = RowOf<typeof listSessionsOfCustomer>

/** The rows after the last one seen, in a list whose newest rows come first; all rows if none was seen. */
export const isAfter = (at: AnyPgColumn, id: AnyPgColumn, seen: Params<Page>) =>
  sql`(${at}, ${id}) < (coalesce(${seen.beforeAt}::timestamptz, 'infinity'), coalesce(${seen.beforeId}::text, ''))`

/** The most sessions that one page reads: most of them may have ended. */
const MAX_LOOKED_AT = 2_000

/**
 * The live sessions among the next MAX_LOOKED_AT, newest first, and the last of those, live or not, where the next page
 * continues. `condition` is part of the text, because a condition that is optional at run time would keep a prepared statement
 * from using its index.
 */
const listLive = (db: Builder, asked: Params<SessionQuery>, condition?: SQL) => {
  const next = db
    .select({
      ...getTableColumns(sessions),
      place: sql<number>`row_number() over ${NEWEST_FIRST}`.as('place'),
    })
    .from(sessions)
    .where(
      and(
        eq(sessions.customerId, asked.customerId),
        condition,
        isAfter(sessions.issuedAt, sessions.id, asked),
      ),
    )
    .orderBy(desc(sessions.issuedAt), desc(sessions.id))
    .limit(MAX_LOOKED_AT)
    .as('next')
  const live = sql<boolean>`(${isLive(next)})`
  const lastRead = sql<boolean>`${eq(next.place, MAX_LOOKED_AT)}`
  return db
    .select({
      id: next.id,
      subject: next.subject,
      scope: next.scope,
      audience: next.audience,
      gen: next.gen,
      issuedAt: next.issuedAt,
      rotatedAt: next.rotatedAt,
      renewedAt: next.renewedAt,
      expiresAt: next.expiresAt,
      endsAt: next.endsAt,
      ip: next.ip,
      userAgent: next.userAgent,
      listed: live,
      lastRead,
    })
    .from(next)
    .where(or(live, lastRead))
    .orderBy(desc(next.issuedAt), desc(next.id))
    .limit(asked.limit)
}

const NEWEST_FIRST = sql`(order by ${sessions.issuedAt} desc, ${sessions.id} desc)`

const listSessionsOfCustomer = query('listSessionsOfCustomer', (db, asked: Params<SessionQuery>) =>
  listLive(db, asked),
)
const listSessionsOfSubject = query('listSessionsOfSubject', (db, asked: Params<SessionQuery>) =>
  listLive(db, asked, eq(sessions.subject, asked.subject)),
)

export const listSessions = (db: Pick<Connection, 'values'>, asked: SessionQuery) =>
  (asked.subject === undefined ? listSessionsOfCustomer : listSessionsOfSubject)(db, asked)
