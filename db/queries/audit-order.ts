import type { Database } from '../client.ts'
import { type SQL, sql } from '../drizzle.ts'
import { param, prepared } from '../prepared.ts'
import { auditEvents } from '../schema/audit-events.ts'
import { auditBatches, auditSequencer } from '../schema/audit-order.ts'
import type { AuditRow, AuditType } from './audit.ts'

/** The order of the audit's events, which is decided after their commit. Its functions are in 0002_audit_partitions.sql. */

export interface OrderingRun {
  /** Events that got a position. */
  ordered: number
  /** Whether more events wait for the next run. */
  more: boolean
  /**
   * Whether every event that was committed before this call has a position. Also false if another run is in progress.
   */
  complete: boolean
}

/** Assigns positions to events that have none yet. Any replica may call it at any time. */
export const orderEvents = prepared('orderEvents')<Record<never, never>, OrderingRun>(
  sql`select ordered, more, complete from assay.order_audit_events()`,
)

/** The most batches that one statement deletes. */
const DELETED_BATCHES = 50

const deleteOldBatches = prepared('deleteOldBatches')<Record<never, never>, { deleted: number }>(
  sql`select assay.delete_audit_batches(${sql.raw(`${DELETED_BATCHES}`)}) as deleted`,
)

/** Deletes the beginning of the order, as far as its events are deleted. Returns the number of batches. */
export async function deleteOldOrder(db: Pick<Database, 'query'>): Promise<number> {
  for (let removed = 0; ; ) {
    const [{ deleted }] = (await deleteOldBatches(db, {})) as [{ deleted: number }]
    removed += deleted
    if (deleted < DELETED_BATCHES) return removed
  }
}

const b = auditBatches
const s = auditSequencer
const e = auditEvents

/** The mark of the batch that has the position, or null if no batch has it. */
const markAt = (position: SQL) => sql`(
  select case when first_position <= ${position} then mark end
  from (select * from ${b} where ${b.lastPosition} >= ${position} order by ${b.lastPosition} limit 1) as found)`

/** The part of the order after a position. */
export interface OrderSpan {
  /**
   * The positions from `start` (exclusive) to `stop` are the next page. `start` is greater than `after` if the positions between
   * them were deleted.
   */
  start: number
  stop: number
  /** The last position that was assigned. */
  last: number
  /** Null if no batch has the position `after`. */
  afterMark: string | null
  stopMark: string | null
  completeUntil: Date
}

/** `after`: null is the end of the order. */
export const findOrderSpan = prepared('findOrderSpan')<
  { after: number | null; limit: number },
  OrderSpan
>(sql`
  with reader as (
    select ${s.position} as last, ${s.completeUntil} as complete_until,
      coalesce(${param('after')}::bigint, ${s.position}) as after
    from ${s}
  ),
  bounds as (
    select *, greatest(after, (select ${b.firstPosition} - 1 from ${b} order by ${b.lastPosition} limit 1)) as start
    from reader
  ),
  span as (select *, least(start + ${param('limit')}::bigint, last) as stop from bounds)
  select start, stop, last, complete_until as "completeUntil",
    ${markAt(sql`span.after`)} as "afterMark", ${markAt(sql`span.stop`)} as "stopMark"
  from span`)

export const findLastPosition = prepared('findLastPosition')<Record<never, never>, { last: number }>(
  sql`select ${s.position} as last from ${s}`,
)

export interface OrderFilter {
  customerId: string | undefined
  /** `operator:<name>`. */
  actor: string | undefined
  type: AuditType | undefined
  from: Date | undefined
  to: Date | undefined
}

/** An event and its position. `type` is null if the event has been deleted since. */
export type OrderedRow = (AuditRow | { type: null }) & { position: number; mark: string }

/**
 * The most events in a batch (0002_audit_partitions.sql); it allows finding the page's batches by their last
 * positions.
 */
const MAX_BATCH = 2_000

/**
 * Lists the events at the positions from `start` (exclusive) to `stop`, in this order. Positions whose events have
 * been deleted are always listed. `offset 0` keeps the planner from joining the whole audit.
 */
export const listOrderedEvents = prepared('listOrderedEvents')<
  OrderFilter & { start: number; stop: number },
  OrderedRow
>(sql`
  select o.position, o.mark, e.at, e.id, e.customer_id as "customerId", e.type, e.actor, e.subject,
    e.session_id as "sessionId", e.token_id as "tokenId", e.ip, e.user_agent as "userAgent", e.detail
  from (
    select ${b.firstPosition} + u.n - 1 as position, ${b.mark}, u.at, u.id
    from ${b} cross join lateral unnest(${b.at}, ${b.ids}) with ordinality as u (at, id, n)
    where ${b.lastPosition} > ${param('start')}::bigint
      and ${b.lastPosition} < ${param('stop')}::bigint + ${sql.raw(`${MAX_BATCH}`)}
  ) as o
  left join lateral (select * from ${e} where ${e.at} = o.at and ${e.id} = o.id offset 0) as e on true
  where o.position > ${param('start')}::bigint and o.position <= ${param('stop')}::bigint
    and (e.id is null or (
      (${param('customerId')}::text is null or e.customer_id = ${param('customerId')})
      and (${param('actor')}::text is null or e.actor = ${param('actor')})
      and (${param('type')}::text is null or e.type = ${param('type')})
      and e.at >= coalesce(${param('from')}::timestamptz, '-infinity')
      and e.at < coalesce(${param('to')}::timestamptz, 'infinity')))
  order by o.position`)
