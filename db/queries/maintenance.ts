import type { Connection } from '../client.ts'
import { type AnyPgColumn, sql } from '../drizzle.ts'
import { prepared } from '../prepared.ts'
import { query } from '../query.ts'
import { now } from '../schema/common.ts'
import { idempotencyKeys } from '../schema/idempotency-keys.ts'
import { replicas } from '../schema/replicas.ts'
import { revocations } from '../schema/revocations.ts'
import { sessions } from '../schema/sessions.ts'

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
