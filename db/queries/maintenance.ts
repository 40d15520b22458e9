import type { Connection } from '../client.ts'
import { bare } from '../columns.ts'
import { type AnyPgColumn, alias, sql } from '../drizzle.ts'
import { prepared } from '../prepared.ts'
import { query } from '../query.ts'
import { now } from '../schema/common.ts'
import { idempotencyKeys } from '../schema/idempotency-keys.ts'
import { replicas } from '../schema/replicas.ts'
import { revocations } from '../schema/revocations.ts'
import { sessions } from '../schema/sessions.ts'
import { subjectEpochs } from '../schema/subject-epochs.ts'

/** Rows that one statement deletes at most: too few to slow down anything else. */
const BATCH_ROWS = 5_000

/** Deletes a batch of the rows whose time is so long ago. A row that another replica is deleting is skipped. */
const deleteBefore = (name: string, key: AnyPgColumn[], time: AnyPgColumn, ago: string) =>
  query(name, db => {
    const columns = sql.join(key, sql`, `)
    // The subquery makes the time a constant, or the index can't be used: assay.now() is volatile.
    const end = sql`(select ${now} - ${sql.raw(`interval '${ago}'`)})`
    const dead = sql`select ${columns} from ${time.table} where ${time} < ${end}
      limit ${sql.raw(`${BATCH_ROWS}`)} for update skip locked`
    return db.delete(time.table).where(sql`(${columns}) in (${dead})`).returning({ one: sql`1` })
  })

/**
 * Rows that no answer depends on any more, each kind with a margin. Revocations are kept an hour longer, because a database
 * clock that is set back makes them matter again; sessions are kept for a day after their absolute end.
 */
export const DEAD = {
  revocations: deleteBefore('deleteDeadRevocations', [revocations.seq], revocations.deadAfter, '1 hour'),
  replicas: deleteBefore('deleteDeadReplicas', [replicas.id], replicas.seenAt, '1 day'),
  idempotency_keys: deleteBefore(
    'deleteDeadIdempotencyKeys',
    [idempotencyKeys.customerId, idempotencyKeys.keyDigest],
    idempotencyKeys.expiresAt,
    '0',
  ),
  sessions: deleteBefore('deleteDeadSessions', [sessions.customerId, sessions.id], sessions.endsAt, '1 day'),
}

const s = alias(sessions, 's')
const e = alias(subjectEpochs, 'e')

/**
 * Deletes a batch of the epochs of subjects whose time to look has come: those without a session that began before. No token
 * that began before is alive. The others are looked at again a day later. Answers how many rows were looked at, and how many
 * were deleted.
 *
 * 1. `due` are the next rows, except those that another statement has locked.
 * 2. `needed` are those with such a session.
 * 3. `kept` and `deleted` are what becomes of them.
 */
export const deleteUnneededEpochs = prepared('deleteUnneededEpochs')<
  Record<never, never>,
  { due: number; deleted: number }
>(sql`
  with due as materialized (
    select ${e.customerId}, ${e.subject}, ${e.epoch} from ${subjectEpochs} as ${e}
    where ${e.checkAfter} < (select ${now}) limit ${sql.raw(`${BATCH_ROWS}`)} for update skip locked
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

/** Answers how many rows went; as many as a batch has means that there may be more. */
export const deleteDead = async (db: Pick<Connection, 'values'>, table: keyof typeof DEAD) =>
  (await DEAD[table](db, {})).length

export const isWhole = (deleted: number) => deleted < BATCH_ROWS

/**
 * The versions of the counter's and the replicas' rows that Postgres has still to remove. They grow without end while a
 * transaction is open that may still see them. A role needs no right to know.
 */
export const countDeadRows = prepared('countDeadRows')<Record<never, never>, { dead: number }>(sql`
  select coalesce(sum(pg_stat_get_dead_tuples(oid)), 0)::float8 as dead from pg_class
  where relnamespace = 'assay'::regnamespace and relname in ('change_feed', 'replicas')`)
