import { bare, bareList, insertInto, setExcluded } from '../columns.ts'
import { type AnyPgColumn, alias, type SQL, sql } from '../drizzle.ts'
import { param, prepared } from '../prepared.ts'
import { query, type RowOf } from '../query.ts'
import { now } from '../schema/common.ts'
import { clockBaselines, databaseClock } from '../schema/database-clock.ts'
import { type AuditContext, auditInsert } from './audit.ts'

/**
 * Whether rows that depend on the database's clock may be deleted now: db/migrations/0002_audit_partitions.sql. The
 * subquery makes Postgres evaluate it once per statement and not for each row.
 */
export const clockIsTrusted = sql`(select assay.clock_is_trusted())`

/** Whether a jump of the clock holds deletion. */
export const isHeld = sql<boolean>`exists (select from ${databaseClock} where ${databaseClock.heldUntil} is not null)`

/**
 * The most that the database's clock may drift from a monotonic one (ms). Deletion has margins of at least this much.
 */
const MAX_DRIFT_MS = sql.raw('60000')
/** The part of the elapsed time by which correct clocks may drift apart: 86 s a day. */
const MAX_DRIFT_RATE = sql.raw('0.001')
/** The most that the wall clocks of two replicas may differ if no monotonic clock was running (ms). */
const MAX_WALL_DIFFERENCE_MS = sql.raw('600000')
/** For how long a jump holds deletion. */
const HOLD = sql.raw(`interval '24 hours'`)

const b = alias(clockBaselines, 'b')
const d = alias(databaseClock, 'd')

const milliseconds = (interval: SQL) => sql`(extract(epoch from ${interval}) * 1000)::float8`
/** The new value of a column of the hold. A jump begins a hold, and an expired hold ends. */
const holdColumn = (
  column: AnyPgColumn,
  jumped: SQL,
) => sql`${bare(column)} = case when judged.jumped then ${jumped}
  when judged.held_until <= judged.t then null else ${column} end`

export interface ClockObservation {
  /** Whether this observation found a jump. */
  jumped: boolean
  /** Deletion is held until then; null if it isn't. */
  heldUntil: Date | null
  jumpedAt: Date | null
  /** How far the clock jumped (ms); negative if it went back. */
  jump: number | null
}

/**
 * Compares the database's clock with this machine's monotonic clock, and holds deletion if it has jumped. `reading` and `wall`
 * (ms) are taken before the statement is sent.
 *
 * 1. `locked` serialises observations; `timed` has the time after the lock. The limit tells the planner that there is one row,
 *    because it would otherwise compile the statement (JIT) for the thousands that it expects.
 * 2. `own` is this clock's last reading. It is locked, because a statement that waited would otherwise read the old row.
 * 3. `measured` has how far the database's clock went beyond the elapsed time. Without an earlier reading, it is the unexplained
 *    part of the gap since the last observation of any replica: a short gap needs no explanation, and a long one is explained by
 *    wall clocks that advanced as far.
 * 4. `judged` adds it to the drift, subtracts the drift that is allowed for the elapsed time, and decides whether that is a jump.
 * 5. `moved` adjusts the other clocks' baselines, so that no other replica finds the same jump again.
 * 6. `noted` and `held` store the observation, and `audited` the jump.
 */
export const observeClock = prepared('observeClock')<
  AuditContext & { id: string; reading: number; wall: number },
  ClockObservation
>(sql`
  with locked as materialized (select * from ${databaseClock} limit 1 for update),
  timed as materialized (select locked.*, ${now} as t from locked),
  own as materialized (
    select ${b.observedAt}, ${b.drift}, ${param('reading')}::float8 - ${b.reading} as elapsed
    from ${clockBaselines} as ${b}, timed where ${b.id} = ${param('id')} for update of ${b}
  ),
  measured as materialized (
    select timed.*, coalesce(own.drift, 0) as drift, own.elapsed >= 0 as is_compared,
      greatest(own.elapsed, 0) as elapsed, case
        when own.elapsed >= 0 then ${milliseconds(sql`t - own.observed_at`)} - own.elapsed
        when t - timed.observed_at not between - interval '1 minute' and interval '10 minutes'
          then ${milliseconds(sql`t - timed.observed_at`)} - (${param('wall')}::float8 - observed_wall)
        else 0 end as step
    from timed left join own on true
  ),
  judged as materialized (
    select *, case when is_compared then abs(total) > ${MAX_DRIFT_MS}
      else abs(step) > ${MAX_WALL_DIFFERENCE_MS} end as jumped
    from measured cross join lateral (
      select sign(drift + step) * greatest(abs(drift + step) - elapsed * ${MAX_DRIFT_RATE}, 0) as total
    ) as forgiven
  ),
  moved as (
    update ${clockBaselines} as ${b}
    set ${bare(b.observedAt)} = ${b.observedAt} + make_interval(secs => step / 1000)
    from judged where jumped and ${b.id} <> ${param('id')}
  ),
  noted as (
    ${insertInto(clockBaselines, 'id', 'reading', 'observedAt', 'drift')}
    select ${param('id')}, ${param('reading')}::float8, t, case when jumped then 0 when is_compared then total else drift end
    from judged
    on conflict (${bareList(clockBaselines, 'id')}) do update
      set ${setExcluded(clockBaselines, 'reading', 'observedAt', 'drift')}
  ),
  held as (
    update ${databaseClock} as ${d} set ${bare(d.observedAt)} = t, ${bare(d.observedWall)} = ${param('wall')}::float8,
      ${holdColumn(d.heldUntil, sql`judged.t + ${HOLD}`)}, ${holdColumn(d.jumpedAt, sql`judged.t`)},
      ${holdColumn(d.jump, sql`case when is_compared then total else step end`)}
    from judged where ${d.only}
    returning null::text as customer_id, t, jumped, ${d.heldUntil}, ${d.jumpedAt}, ${d.jump}
  ),
  audited as (${auditInsert('clock.jumped', 'held where jumped', {
    detail: sql`json_build_object('seconds', round(jump / 1000.0), 'held_until', held_until, 'severity', 'critical')::text`,
  })})
  select jumped, held_until as "heldUntil", jumped_at as "jumpedAt", jump from held`)

export type ClockState = RowOf<typeof findClock>

/** Finds the state of the database's clock, and the time that it reads. */
export const findClock = query('findClock', db =>
  db
    .select({
      now: sql<Date>`${now}`,
      observedAt: databaseClock.observedAt,
      heldUntil: databaseClock.heldUntil,
      jumpedAt: databaseClock.jumpedAt,
      jump: databaseClock.jump,
    })
    .from(databaseClock),
)

/**
 * Ends the hold that lasts until `heldUntil`, because an operator has confirmed that the clock is right. No row: there is no such
 * hold.
 */
export const confirmClock = prepared('confirmClock')<AuditContext & { heldUntil: Date }, { t: Date }>(sql`
  with held as materialized (
    select * from ${databaseClock} where ${databaseClock.heldUntil} = ${param('heldUntil')}::timestamptz for update
  ),
  confirmed as (
    update ${databaseClock} as ${d}
    set ${bare(d.heldUntil)} = null, ${bare(d.jumpedAt)} = null, ${bare(d.jump)} = null
    from held
    returning null::text as customer_id, ${now} as t, held.jump, held.jumped_at
  ),
  audited as (${auditInsert('clock.confirmed', 'confirmed', {
    detail: sql`json_build_object('seconds', round(jump / 1000.0), 'jumped_at', jumped_at)::text`,
  })})
  select t from confirmed`)
