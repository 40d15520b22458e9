import { auditedAs, type Origin } from './audit.ts'
import type { Line } from './client.ts'
import { statement } from './statement.ts'

/** One row of the bus, as the poll brings it: seq, kind, customer id, key, epoch, dead after (NumericDate). */
export type RevocationRow = [
  number,
  'token' | 'session' | 'subject' | 'customer',
  string,
  string,
  number,
  number,
]

/**
 * Publishes what the part `narrowed` lists (kind, customer_id, key, epoch, dead_after) and takes the next numbers for
 * it, as the act's last step: the counter's row stays locked only for the commit. `after` names the parts that must be
 * done before; two acts that took the counter first and waited for each other's rows would deadlock.
 */
export const publishing = (after: string[]) => `
  numbered as (
    update assay.bus set seq = seq + (select count(*) from narrowed)
    where (select count(*) from narrowed) > 0
      ${after.map(part => `and (select count(*) from ${part}) >= 0`).join(' ')}
    returning seq
  ),
  published as (
    insert into assay.revocations (seq, kind, customer_id, key, epoch, dead_after)
    select numbered.seq + 1 - row_number() over (), kind, customer_id, key, epoch, dead_after from narrowed, numbered
  )`

/** Added to the moment when the last token concerned is dead by itself. */
export const AFTER_DEATH = `interval '1 minute'`

/** No access token lives longer: how long a change of a customer, a key or an epoch can concern one. */
export const LONGEST_TOKEN = `interval '24 hours'`

/**
 * What the state rests on, read with whatever is decided by it: the counter, whether this is a standby, and the system
 * and timeline. A failover to another timeline may have lost commits; numbers compare on one timeline only.
 */
export const POSITION = `
  (select seq from assay.bus) as seq,
  pg_is_in_recovery() as standby,
  (select system_identifier from pg_control_system()) || '/' || case when pg_is_in_recovery() then 'standby'
    else substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) end as timeline`

export interface Position {
  seq: number
  standby: boolean
  timeline: string
}

export interface Poll extends Position {
  /** Milliseconds since 1970, by the database's clock. */
  now: number
  /** JSON of RevocationRow[], by seq; null when there is none. */
  rows: string | null
  /** The lowest number that every other live replica has applied, and the longest any of them may go without a poll (ms). */
  othersApplied: number | null
  othersStaleness: number | null
}

/** Revocations that one poll brings at most, so that it stays well within its deadline; more take more polls. */
export const PAGE = 20_000

/** Read and written in one: a read-only or full database can't answer it, and so is never taken for the primary. */
export const poll = statement<{ replica: string; applied: number; maxStaleness: number }, Poll>(`
  with here as (
    insert into assay.replicas (id, applied, max_staleness, seen_at)
    values (:replica, :applied, :maxStaleness, assay.now())
    on conflict (id) do update
      set applied = excluded.applied, max_staleness = excluded.max_staleness, seen_at = excluded.seen_at
    returning seen_at
  ), others as (
    select min(applied) as applied, max(max_staleness) as staleness
    from assay.replicas, here
    where id <> :replica and replicas.seen_at > here.seen_at - make_interval(secs => max_staleness / 1000.0)
  )
  select ${POSITION},
    (extract(epoch from here.seen_at) * 1000)::float8 as now,
    others.applied as "othersApplied",
    others.staleness as "othersStaleness",
    (select json_agg(json_build_array(r.seq, r.kind, r.customer_id, r.key, r.epoch,
        floor(extract(epoch from r.dead_after))) order by r.seq)
      from (select * from assay.revocations
        where seq > :applied and dead_after > here.seen_at order by seq limit ${PAGE}) r)::text as rows
  from here, others`)

export const deleteReplica = statement<{ replica: string }, never>(
  'delete from assay.replicas where id = :replica',
)

/** Ends one access token until its exp (NumericDate). Answers the bus's number. */
export const insertRevokedToken = statement<
  Origin & { customerId: string; tokenId: string; subject: string; expiresAt: number },
  { seq: number }
>(`
  with clock as materialized (select assay.now() as t, :customerId::text as customer_id),
  audited as (${auditedAs(`'token.revoked'`, 'clock', { subject: ':subject::text', token: ':tokenId::text' })}),
  narrowed as (
    select 'token' as kind, customer_id, :tokenId::text as key, 0 as epoch,
      to_timestamp(:expiresAt::float8) + ${AFTER_DEATH} as dead_after
    from clock
  ), ${publishing(['audited'])}
  select seq from numbered`)

export type Querier = Pick<Line, 'query'>
