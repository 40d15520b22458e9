import { z } from 'zod'
import { AUDIT_TYPES, type AuditRow, type AuditSpan, type AuditType } from '../audit/audit.ts'
import { accountKeeper, type Keeper } from '../http/auth.ts'
import type { Call, Reply, Routes } from '../http/call.ts'
import type { Services } from '../http/env.ts'
import { decodeCursor, pageOf, pageSize } from '../http/pagination.ts'
import { present, readQuery } from '../http/params.ts'
import { json, NO_STORE } from '../http/respond.ts'
import { ApiError } from '../lib/errors.ts'
import { operator } from './admin/operator.ts'

type Needs = Pick<Services, 'audit' | 'metrics' | 'sessions' | 'tokens'>

/** A customer's part of the audit. */
export const auditRoutes = (services: Needs): Routes => keptAudit(services, '/api', accountKeeper(services))

/** Of the customer that the keeper names. */
export const keptAudit = (services: Pick<Services, 'audit'>, base: string, keeper: Keeper): Routes => ({
  [`GET ${base}/audit`]: listEvents(services, keeper),
})

/** Of all customers, for operators. */
export const wholeAuditRoutes = (services: Pick<Services, 'audit' | 'log' | 'operators'>): Routes => ({
  'GET /admin/audit': searchEvents(services),
  'GET /admin/audit/export': exportEvents(services),
})

const SPAN = ['type', 'from', 'to'] as const
const PAGE = ['cursor', 'limit'] as const

function listEvents({ audit }: Pick<Services, 'audit'>, keeper: Keeper) {
  return async function listEvents(call: Call) {
    const { customerId } = await keeper(call)
    const asked = readQuery(call, [...SPAN, ...PAGE])
    return pageOfEvents(asked, span => audit.list({ ...span, customerId }), toEvent)
  }
}

function searchEvents(services: Pick<Services, 'audit' | 'operators'>) {
  return async function searchEvents(call: Call) {
    operator(call, services)
    const asked = readQuery(call, ['customer', 'operator', ...SPAN, ...PAGE])
    const whose = whoseEvents(asked)
    return pageOfEvents(asked, span => services.audit.search({ ...span, ...whose }), toWholeEvent)
  }
}

type Asked = { [name in (typeof SPAN)[number] | (typeof PAGE)[number]]?: string }

async function pageOfEvents(
  asked: Asked,
  find: (span: AuditSpan) => Promise<AuditRow[]>,
  shown: (event: AuditRow) => object,
) {
  const size = pageSize(asked.limit)
  const rows = await find({ ...spanOf(asked), ...auditPosition(asked.cursor), limit: size + 1 })
  const { page, nextCursor } = pageOf(rows, size, event => event.at)
  return json(present({ events: page.map(shown), next_cursor: nextCursor }))
}

/** A line of JSON for each event, newest first, however many there are. Its first page is read before it is answered. */
function exportEvents(services: Pick<Services, 'audit' | 'log' | 'operators'>) {
  return async function exportEvents(call: Call): Promise<Reply> {
    operator(call, services)
    const asked = readQuery(call, ['customer', 'operator', ...SPAN])
    const pages = services.audit.all({ ...spanOf(asked), ...whoseEvents(asked) })
    const first = await pages.next()
    if (call.method === 'HEAD') await pages.return(undefined)
    const body = call.method === 'HEAD' ? '' : linesOf(services, call, first.done ? [] : first.value, pages)
    return { status: 200, headers: { 'Content-Type': 'application/x-ndjson', ...NO_STORE }, body }
  }
}

async function* linesOf(
  { log }: Pick<Services, 'log'>,
  call: Call,
  first: AuditRow[],
  rest: AsyncGenerator<AuditRow[]>,
) {
  try {
    yield lines(first)
    for await (const page of rest) yield lines(page)
  } catch (error) {
    log.warn({ requestId: call.requestId, err: error }, 'an export of the audit broke off')
    throw error
  } finally {
    await rest.return(undefined)
  }
}

const lines = (page: AuditRow[]) => page.map(event => `${JSON.stringify(toWholeEvent(event))}\n`).join('')

const spanOf = ({ type, from, to }: Asked) => ({
  type: auditType(type),
  from: instant('from', from),
  to: instant('to', to),
})

/** Others can't be looked for among all customers: their events are found under their customer. */
function whoseEvents({ customer, operator }: { customer?: string; operator?: string }) {
  if (customer !== undefined && operator !== undefined)
    throw new ApiError('invalid_request', 'customer or operator, not both')
  if (customer !== undefined && !/^[a-z2-7]{16}$/.test(customer))
    throw new ApiError('invalid_request', "customer: a customer's id, 16 letters and digits")
  return { customerId: customer, actor: operator === undefined ? undefined : `operator:${operator}` }
}

/** A misspelt one would be answered with an empty list, as though nothing had been done. */
function auditType(type: string | undefined): AuditType | undefined {
  const known = AUDIT_TYPES.find(each => each === type)
  if (type !== undefined && known === undefined)
    throw new ApiError('invalid_request', `type: one of ${AUDIT_TYPES.join(', ')}`)
  return known
}

function auditPosition(cursor: string | undefined) {
  const position = decodeCursor(cursor)
  if (position && !/^\d{1,15}$/.test(position.id))
    throw new ApiError('invalid_request', 'cursor: send next_cursor of the page before, or leave it out')
  return { beforeAt: position?.at, beforeId: position && Number(position.id) }
}

/** Milliseconds since 1970. */
const YEAR_10000_MS = 253_402_300_800_000
const RFC_3339 = z.iso.datetime({ offset: true })

function instant(name: string, text: string | undefined): Date | undefined {
  if (text === undefined) return undefined
  const at = RFC_3339.safeParse(text).success ? Date.parse(text) : Number.NaN
  if (!(at >= 0 && at < YEAR_10000_MS))
    throw new ApiError('invalid_request', `${name}: a time like 2026-01-31T12:00:00Z`)
  return new Date(at)
}

const toEvent = ({ id, at, type, actor, subject, sessionId, tokenId, ip, userAgent, detail }: AuditRow) =>
  present({
    id: String(id),
    at,
    type,
    actor,
    subject,
    session_id: sessionId,
    token_id: tokenId,
    ip,
    user_agent: userAgent,
    detail: detail === null ? undefined : JSON.parse(detail),
  })

const toWholeEvent = (event: AuditRow) => present({ ...toEvent(event), customer_id: event.customerId })
