import type { Connection } from '../client.ts'
import { bare, bareList } from '../columns.ts'
import { type AnyPgColumn, alias, sql } from '../drizzle.ts'
import { param, prepared } from '../prepared.ts'
import { query } from '../query.ts'
import { now } from '../schema/common.ts'
import { customers } from '../schema/customers.ts'
import { clockBaselines } from '../schema/database-clock.ts'
import { idempotencyKeys } from '../schema/idempotency-keys.ts'
import { oneTimeTokens } from '../schema/one-time-tokens.ts'
import { replicas } from '../schema/replicas.ts'
import { revocations } from '../schema/revocations.ts'
import { sessions } from '../schema/sessions.ts'
import { subjectEpochs } from '../schema/subject-epochs.ts'
import { EVERYONES_EPOCH } from './change-feed.ts'
import { clockIsTrusted } from './database-clock.ts'

/** The most rows that one statement deletes: too few to slow down other statements. */
const BATCH_ROWS = 5_000
/**
 * The most sessions that one statement reads. With many more, Postgres would compile the statement (JIT), which takes longer than
 * running it.
 */
const WINDOW_ROWS = 2_000

/**
 * The time that long ago. Null while the clock is not trusted, which matches no row. The subquery makes it a constant. Otherwise
 * no index can be used, because assay.now() is volatile.
 */
const timeAgo = (ago: string) =>
  sql`(select ${now} - ${sql.raw(`interval '${ago}'`)} where ${clockIsTrusted})`

/**
 * Deletes a batch of the rows whose time is at least that long ago. A row that another replica is deleting is
 * skipped.
 */
const deleteBefore = (name: string, key: AnyPgColumn[], time: AnyPgColumn, ago: string) =>
  query(name, db => {
    const columns = sql.join(key, sql`, `)
    const dead = sql`select ${columns} from ${time.table} where ${time} < ${timeAgo(ago)}
      limit ${sql.raw(`${BATCH_ROWS}`)} for update skip locked`
    return db.delete(time.table).where(sql`(${columns}) in (${dead})`).returning({ one: sql`1` })
  })

/**
 * Rows that no answer depends on any more, each kind with a margin. Revocations are kept an hour longer, because a database
 * clock that is set back makes them matter again.
 */
export const DEAD = {
  revocations: deleteBefore('deleteDeadRevocations', [revocations.seq], revocations.deadAfter, '1 hour'),
  replicas: deleteBefore('deleteDeadReplicas', [replicas.id], replicas.seenAt, '1 day'),
  clock_baselines: deleteBefore(
    'deleteDeadClockBaselines',
    [clockBaselines.id],
    clockBaselines.observedAt,
    '30 days',
  ),
  idempotency_keys: deleteBefore(
    'deleteDeadIdempotencyKeys',
    [idempotencyKeys.customerId, idempotencyKeys.keyDigest],
    idempotencyKeys.expiresAt,
    '0',
  ),
  one_time_tokens: deleteBefore(
    'deleteDeadOneTimeTokens',
    [oneTimeTokens.customerId, oneTimeTokens.purpose],
    oneTimeTokens.expiresAt,
    '0',
  ),
}

/** Returns how many rows were deleted; a full batch means that there may be more. */
export const deleteDead = async (db: Pick<Connection, 'values'>, table: keyof typeof DEAD) =>
  (await DEAD[table](db, {})).length

export const isWhole = (deleted: number) => deleted < BATCH_ROWS

/**
 * The versions of the counter's and the replicas' rows that Postgres has still to remove. They grow without end while
 * a transaction is open that may still see them. Reading the number needs no privilege.
 */
export const countDeadRows = prepared('countDeadRows')<Record<never, never>, { dead: number }>(sql`
  select coalesce(sum(pg_stat_get_dead_tuples(oid)), 0)::float8 as dead from pg_class
  where relnamespace = 'assay'::regnamespace and relname in ('change_feed', 'replicas')`)

/** The last session that a pass checked. The next one continues after it. */
export interface SessionCursor {
  customerId: string
  id: string
}

const s = alias(sessions, 's')
const c = alias(customers, 'c')
const e = alias(subjectEpochs, 'e')

/**
 * Whether a session died so long ago that nothing depends on it: it was revoked, it expired, or an epoch has passed it. A
 * day after its last access token, no audit event can make that token count as live (fromLiveTokens in
 * live-counts.ts), and no Idempotency-Key leads to it.
 */
const isDead = sql`${s.accessUntil} < end_of.dead and (
  ${s.revokedAt} < end_of.dead or ${s.expiresAt} < end_of.dead or ${s.customerEpoch} < ${EVERYONES_EPOCH}
  or not exists (select from ${customers} as ${c} where ${c.id} = ${s.customerId} and ${c.epoch} <= ${s.customerEpoch})
  or exists (select from ${subjectEpochs} as ${e}
    where ${e.customerId} = ${s.customerId} and ${e.subject} = ${s.subject} and ${e.epoch} > ${s.subjectEpoch}))`

/**
 * Deletes the dead sessions among the next ones after the cursor, in the order of the primary key. No index finds
 * dead sessions: one on their expiry would make every refresh more expensive. `next` is null once the end is reached.
 *
 * 1. `end_of` has the time before which sessions must have died; null while the clock is not trusted.
 * 2. `s` are the sessions behind the cursor, and `dead` the dead ones among them.
 * 3. `locked` locks those, one by one, and skips rows that are locked or were refreshed since.
 */
export const deleteDeadSessions = prepared('deleteDeadSessions')<
  SessionCursor,
  { removed: number; next: SessionCursor | null }
>(sql`
  with end_of as materialized (select ${timeAgo('1 day')} as dead),
  s as materialized (
    select ${bareList(sessions, 'customerId', 'id', 'subject', 'accessUntil', 'revokedAt', 'expiresAt', 'customerEpoch', 'subjectEpoch')}
    from ${sessions}
    where (${sessions.customerId}, ${sessions.id}) > (${param('customerId')}::text, ${param('id')}::text)
    order by ${sessions.customerId}, ${sessions.id} limit ${sql.raw(`${WINDOW_ROWS}`)}
  ),
  dead as materialized (select s.* from s, end_of where ${isDead}),
  locked as materialized (
    select row.* from dead cross join lateral (
      select ${sessions.customerId}, ${sessions.id} from ${sessions}
      where ${sessions.customerId} = dead.customer_id and ${sessions.id} = dead.id
        and ${sessions.expiresAt} = dead.expires_at
      for update skip locked
    ) as row
  ),
  removed as (
    delete from ${sessions} where (${sessions.customerId}, ${sessions.id}) in (select customer_id, id from locked) returning 1
  )
  select (select count(*) from removed) as removed, (
    select json_build_object('customerId', customer_id, 'id', id) from s
    order by customer_id, id offset ${sql.raw(`${WINDOW_ROWS - 1}`)} limit 1
  ) as next`)

/**
 * Checks a batch of subject epochs that are due, and deletes those without a session that began before the epoch. No
 * token that began before it is alive. The others are checked again a day later. Returns how many rows were checked,
 * and how many were deleted.
 *
 * 1. `due` are the next rows, except those that another statement has locked; none while the clock is not trusted.
 * 2. `needed` are those with such a session.
 * 3. `kept` and `deleted` update or delete them.
 */
export const deleteUnneededEpochs = prepared('deleteUnneededEpochs')<
  Record<never, never>,
  { due: number; deleted: number }
>(sql`
  with due as materialized (
    select ${e.customerId}, ${e.subject}, ${e.epoch} from ${subjectEpochs} as ${e}
    where ${e.checkAfter} < ${timeAgo('0')} limit ${sql.raw(`${BATCH_ROWS}`)} for update skip locked
  ),
  needed as materialized (
    select customer_id, subject from due
    where exists (select from ${sessions} as ${s}
      where ${s.customerId} = due.customer_id and ${s.subject} = due.subject and ${s.subjectEpoch} < due.epoch
      offset 0)
  ),
  kept as (
    update ${subjectEpochs} as ${e} set ${bare(e.checkAfter)} = ${now} + interval '1 day'
    from needed where ${e.customerId} = needed.customer_id and ${e.subject} = needed.subject
  ),
  deleted as (
    delete from ${subjectEpochs} as ${e} using (select customer_id, subject from due except select * from needed) as unneeded
    where ${e.customerId} = unneeded.customer_id and ${e.subject} = unneeded.subject
    returning 1
  )
  select (select count(*) from due)::int as due, (select count(*) from deleted)::int as deleted`)
