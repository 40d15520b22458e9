import { type Context, Hono } from 'hono'
import {
  type AuditRow,
  type AuditSpan,
  exportEvents,
  MAX_PAGE_ROWS,
  type OrderCursor,
  type OrderedEvent,
  type OrderQuery,
  readOrder,
  searchEvents,
  waitForOrder,
} from '../../audit/audit.ts'
import { milliseconds } from '../../config/values.ts'
import { authenticateOperator } from '../../http/auth.ts'
import type { AppContext, OperatorEnv } from '../../http/env.ts'
import { pageSize } from '../../http/pagination.ts'
import { present, readQuery } from '../../http/params.ts'
import { json, NO_STORE, respond } from '../../http/respond.ts'
import { ApiError } from '../../lib/errors.ts'
import { PAGE_PARAMS, pageOfEvents, SPAN_PARAMS, serializeEvent, spanOf } from '../audit.ts'

const FILTERS = ['customer', 'operator', ...SPAN_PARAMS] as const
type FilterQuery = { [name in (typeof FILTERS)[number]]?: string }
type OrderPageQuery = FilterQuery & { cursor?: string; limit?: string; wait?: string }
type OperatorContext = Context<OperatorEnv>

/** The audit of all customers. */
export const adminAudit = new Hono<OperatorEnv>()
  .get('/', c => {
    const query = readQuery(c, [...FILTERS, ...PAGE_PARAMS, 'after', 'wait'])
    if (query.after !== undefined) return orderPage(c, query, query.after)
    if (query.wait !== undefined) throw new ApiError('invalid_request', WAIT_WITHOUT_AFTER)
    const filter = searchOf(query)
    const find = (span: AuditSpan) => searchEvents(c.get('services'), { ...span, ...filter })
    return pageOfEvents(c, query, find, serializeWithCustomer)
  })
  // Returns a line of JSON for each event, in the order of the events. The first page is read before the answer begins.
  .get('/export', async c => {
    const query = readQuery(c, [...FILTERS, 'after'])
    const pages = exportEvents(c.get('services'), {
      ...filterOf(query),
      after: orderCursor(query.after ?? '0'),
    })
    const first = await pages.next()
    if (c.req.method === 'HEAD') await pages.return(undefined)
    const body =
      c.req.method === 'HEAD' ? null : ReadableStream.from(exportLines(c, first.value ?? [], pages))
    return respond(c, body, 200, { 'Content-Type': 'application/x-ndjson', ...NO_STORE })
  })

const WAIT_WITHOUT_AFTER = 'wait: works only together with after; send both'

async function orderPage(c: OperatorContext, query: OrderPageQuery, after: string) {
  if (query.cursor !== undefined) throw new ApiError('invalid_request', 'send after or cursor, not both')
  const limit = pageSize(query.limit, MAX_PAGE_ROWS)
  const asked = { ...filterOf(query), after: after === 'latest' ? undefined : orderCursor(after), limit }
  const page = await (query.wait === undefined
    ? readOrder(c.get('services'), asked)
    : waitForPage(c, asked, waitMilliseconds(query.wait)))
  const { next, more, completeUntil, expired } = page
  const events = page.events.map(serializeOrdered)
  return json(
    c,
    present({
      events,
      next: formatCursor(next),
      more,
      complete_until: completeUntil,
      expired: expired || undefined,
    }),
  )
}

async function waitForPage(c: OperatorContext, query: OrderQuery, timeoutMs: number) {
  const page = await waitForOrder(c.get('services'), query, {
    operator: c.get('actor'),
    timeoutMs,
    signal: c.req.raw.signal,
    onWaited: waitedMs => c.set('waitedMs', (c.get('waitedMs') ?? 0) + waitedMs),
  })
  // The token may have been replaced during the wait.
  authenticateOperator(c)
  return page
}

const WAIT = milliseconds('1s', '60s', '30s')

function waitMilliseconds(text: string): number {
  const { data, error } = WAIT.safeParse(text)
  if (error) throw new ApiError('invalid_request', `wait: ${error.issues[0]!.message}`)
  return data
}

/** Ends early, and sends no further statements, when the client leaves. */
async function* exportLines(c: AppContext, first: OrderedEvent[], rest: AsyncGenerator<OrderedEvent[]>) {
  const utf8 = new TextEncoder()
  try {
    yield utf8.encode(lines(first))
    for await (const page of rest) yield utf8.encode(lines(page))
  } catch (err) {
    c.get('services').log.warn(
      { requestId: c.get('requestId'), err },
      'an audit export failed before its end',
    )
    // In HTTP/1.0 the end of the connection is the end of the body: only a reset shows that the body is incomplete.
    c.env.incoming?.socket.resetAndDestroy()
  } finally {
    await rest.return(undefined)
  }
}

const lines = (page: OrderedEvent[]) =>
  page.map(event => `${JSON.stringify(serializeOrdered(event))}\n`).join('')

const filterOf = (query: FilterQuery) => ({ ...spanOf(query), ...searchOf(query) })

/** Events of other actors can't be searched across all customers. They are found under their customer. */
function searchOf({ customer, operator }: FilterQuery) {
  if (customer !== undefined && operator !== undefined)
    throw new ApiError('invalid_request', 'send customer or operator, not both')
  if (customer !== undefined && !/^[a-z2-7]{16}$/.test(customer))
    throw new ApiError('invalid_request', "customer: a customer's id, 16 letters and digits")
  return { customerId: customer, actor: operator === undefined ? undefined : `operator:${operator}` }
}

/** `0` is the beginning. */
function orderCursor(text: string): OrderCursor {
  if (text === '0') return { position: 0, mark: undefined }
  const [, position, mark] = /^([1-9]\d{0,14})\.([\da-f]{8}(?:-[\da-f]{4}){3}-[\da-f]{12})$/.exec(text) ?? []
  if (position === undefined)
    throw new ApiError(
      'invalid_request',
      'after: 0, or the cursor of the last event or page that you have read',
    )
  return { position: Number(position), mark }
}

const formatCursor = ({ position, mark }: OrderCursor) => (mark === undefined ? '0' : `${position}.${mark}`)

const serializeOrdered = ({ cursor, ...event }: OrderedEvent) => ({
  ...serializeWithCustomer(event),
  cursor: formatCursor(cursor),
})

const serializeWithCustomer = (event: AuditRow) =>
  present({ ...serializeEvent(event), customer_id: event.customerId })
