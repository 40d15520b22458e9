import {
  type AuditContext,
  type AuditQuery,
  type AuditRow,
  type AuditSpan,
  listAllEvents,
  listEvents,
  listEventsOfOperator,
  listEventsOfType,
} from '../../db/queries/audit.ts'
import { findOrderSpan, listOrderedEvents, type OrderFilter } from '../../db/queries/audit-order.ts'
import { ApiError } from '../lib/errors.ts'
import type { Services } from '../services.ts'

export type { AuditContext, AuditQuery, AuditRow, AuditSpan, AuditType } from '../../db/queries/audit.ts'
export { AUDIT_TYPES } from '../../db/queries/audit.ts'

/** The actor recorded for background jobs. */
export const MAINTENANCE: AuditContext = { actor: 'maintenance', ip: undefined, userAgent: undefined }

/** An operator's search: the events of one customer, of one operator, or of the whole installation. */
export interface AuditSearch extends AuditSpan {
  customerId: string | undefined
  /** `operator:<name>`. */
  actor: string | undefined
}

/** The most positions that one statement reads. */
export const MAX_PAGE_ROWS = 1_000

/** Lists the events of one customer, newest first. */
export const listCustomerEvents = ({ db }: Services, query: AuditQuery) => listEvents(db, query)

/** Newest first. */
export async function searchEvents(
  services: Services,
  { customerId, actor, type, ...span }: AuditSearch,
): Promise<AuditRow[]> {
  const { db } = services
  if (customerId !== undefined) return listEvents(db, { ...span, type, customerId })
  if (actor !== undefined) return listEventsOfOperator(db, { ...span, type, actor })
  return type === undefined ? listAllEvents(db, { ...span, type }) : listEventsOfType(db, { ...span, type })
}

/** A place in the order of events: behind the event at `position`. The mark identifies the order; the beginning has no mark. */
export interface OrderCursor {
  position: number
  mark: string | undefined
}

export type OrderedEvent = AuditRow & { cursor: OrderCursor }

export interface OrderPage {
  events: OrderedEvent[]
  next: OrderCursor
  more: boolean
  /** Every event committed before this time has a position. If `more` is false, the reader has received all of them. */
  completeUntil: Date
  /** Positions behind the cursor whose events were deleted, because they were older than AUDIT_RETENTION. */
  expired: number
}

export interface OrderQuery extends OrderFilter {
  /** Undefined is the end of the order. */
  after: OrderCursor | undefined
  limit: number
}

/**
 * Reads the next `limit` positions behind the cursor, and returns those of their events that the filter matches, in this order.
 * Throws `conflict` if the cursor belongs to an order that the database no longer has.
 */
export async function readOrder(
  { db }: Pick<Services, 'db'>,
  { after, limit, ...filter }: OrderQuery,
): Promise<OrderPage> {
  const [span] = await findOrderSpan(db, { after: after?.position ?? null, limit })
  const { start, stop, last, afterMark, stopMark, completeUntil } = span!
  const from = after ?? { position: last, mark: afterMark ?? undefined }
  const isOther = afterMark !== null && afterMark !== from.mark && from.position > 0
  if (isOther || from.position > last) throw new ApiError('conflict', OTHER_ORDER)
  const rows = stop > start ? await listOrderedEvents(db, { ...filter, start, stop }) : []
  const events = rows.flatMap(({ position, mark, ...row }) =>
    row.type === null ? [] : [{ ...row, cursor: { position, mark } }],
  )
  return {
    events,
    next: stop > from.position ? { position: stop, mark: stopMark ?? undefined } : from,
    more: stop < last,
    completeUntil,
    expired: start - from.position + rows.length - events.length,
  }
}

export interface OrderWait {
  /** The actor whose requests are counted. */
  operator: string
  timeoutMs: number
  /** Aborted when the client leaves. */
  signal: AbortSignal
  /** Called after each wait with how long it took (ms). */
  onWaited(milliseconds: number): void
}

/**
 * Like `readOrder`, but an empty page at the end of the order is returned only after `timeoutMs`, or when the server drains.
 * Throws RateLimitedError if too many requests wait, and Unavailable if the database is lost during the wait.
 */
export async function waitForOrder(
  services: Services,
  query: OrderQuery,
  wait: OrderWait,
): Promise<OrderPage> {
  const page = await readOrder(services, query)
  if (!isEmptyEnd(page)) return page
  return services.orderWaiters.admit(wait.operator, () => waitBehind(services, query, wait, page))
}

/** Events that don't match the filter move the cursor, and the request continues to wait behind them. */
async function waitBehind(services: Services, query: OrderQuery, wait: OrderWait, empty: OrderPage) {
  const end = services.clock.monotonic() + wait.timeoutMs
  let page = empty
  while (isEmptyEnd(page) && (await waitOnce(services, page.next, wait, end))) {
    const after = page.next
    page = await services.reads.run(wait.operator, () => readOrder(services, { ...query, after }))
  }
  return page
}

async function waitOnce(services: Services, after: OrderCursor, wait: OrderWait, end: number) {
  const { clock, orderWaiters } = services
  const beganAt = clock.monotonic()
  try {
    return await orderWaiters.wait(after.position, end - beganAt, wait.signal)
  } finally {
    wait.onWaited(clock.monotonic() - beganAt)
  }
}

const isEmptyEnd = ({ events, more, expired }: OrderPage) => events.length === 0 && !more && expired === 0

/** The cause is a restore, or a failover to a standby that had not received the last positions. */
const OTHER_ORDER =
  'after: the database was restored or failed over and no longer has this position; continue from an older cursor, or from 0'

/** Yields the events behind the cursor, page by page, so that at most one page is in memory. */
export async function* exportEvents(
  services: Services,
  { after, ...filter }: OrderFilter & { after: OrderCursor },
): AsyncGenerator<OrderedEvent[]> {
  for (let more = true; more; ) {
    const page = await readOrder(services, { ...filter, after, limit: MAX_PAGE_ROWS })
    ;({ more, next: after } = page)
    if (page.events.length > 0) yield page.events
  }
}
