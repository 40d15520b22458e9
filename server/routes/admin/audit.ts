import { Hono } from 'hono'
import { type AuditRow, type AuditSpan, exportEvents, searchEvents } from '../../audit/audit.ts'
import type { AppContext, OperatorEnv } from '../../http/env.ts'
import { present, readQuery } from '../../http/params.ts'
import { NO_STORE, respond } from '../../http/respond.ts'
import { ApiError } from '../../lib/errors.ts'
import { PAGE_PARAMS, pageOfEvents, SPAN_PARAMS, serializeEvent, spanOf } from '../audit.ts'

/** The audit of all customers. */
export const adminAudit = new Hono<OperatorEnv>()
  .get('/', c => {
    const query = readQuery(c, ['customer', 'operator', ...SPAN_PARAMS, ...PAGE_PARAMS])
    const filter = filterOf(query)
    const find = (span: AuditSpan) => searchEvents(c.get('services'), { ...span, ...filter })
    return pageOfEvents(c, query, find, serializeWithCustomer)
  })
  // A line of JSON for each event, newest first, however many there are. The first page is read before the answer begins.
  .get('/export', async c => {
    const query = readQuery(c, ['customer', 'operator', ...SPAN_PARAMS])
    const pages = exportEvents(c.get('services'), { ...spanOf(query), ...filterOf(query) })
    const first = await pages.next()
    if (c.req.method === 'HEAD') await pages.return(undefined)
    const body =
      c.req.method === 'HEAD' ? null : ReadableStream.from(exportLines(c, first.value ?? [], pages))
    return respond(c, body, 200, { 'Content-Type': 'application/x-ndjson', ...NO_STORE })
  })

/** Ends early, with its statements, when the client leaves. */
async function* exportLines(c: AppContext, first: AuditRow[], rest: AsyncGenerator<AuditRow[]>) {
  const utf8 = new TextEncoder()
  try {
    yield utf8.encode(lines(first))
    for await (const page of rest) yield utf8.encode(lines(page))
  } catch (err) {
    c.get('services').log.warn({ requestId: c.get('requestId'), err }, 'an export of the audit broke off')
    // In HTTP/1.0 the end of the connection is the end of the body: only a reset shows that the body is incomplete.
    c.env.incoming?.socket.resetAndDestroy()
  } finally {
    await rest.return(undefined)
  }
}

const lines = (page: AuditRow[]) =>
  page.map(event => `${JSON.stringify(serializeWithCustomer(event))}\n`).join('')

/** Other actors can't be searched among all customers: their events are found under their customer. */
function filterOf({ customer, operator }: { customer?: string; operator?: string }) {
  if (customer !== undefined && operator !== undefined)
    throw new ApiError('invalid_request', 'customer or operator, not both')
  if (customer !== undefined && !/^[a-z2-7]{16}$/.test(customer))
    throw new ApiError('invalid_request', "customer: a customer's id, 16 letters and digits")
  return { customerId: customer, actor: operator === undefined ? undefined : `operator:${operator}` }
}

const serializeWithCustomer = (event: AuditRow) =>
  present({ ...serializeEvent(event), customer_id: event.customerId })
