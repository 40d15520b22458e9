import { Hono } from 'hono'
import { z } from 'zod'
import { isOperator, isService } from '../audit/actor.ts'
import {
  AUDIT_TYPES,
  type AuditRow,
  type AuditSpan,
  type AuditType,
  listCustomerEvents,
} from '../audit/audit.ts'
import type { AppContext, CustomerEnv } from '../http/env.ts'
import { inTurn } from '../http/in-turn.ts'
import { decodeCursor, pageOf, pageSize } from '../http/pagination.ts'
import { present, readQuery } from '../http/params.ts'
import { json } from '../http/respond.ts'
import { ApiError } from '../lib/errors.ts'

export const SPAN_PARAMS = ['type', 'from', 'to'] as const
export const PAGE_PARAMS = ['cursor', 'limit'] as const

type SpanQuery = { [name in (typeof SPAN_PARAMS)[number]]?: string }
type PageQuery = SpanQuery & { [name in (typeof PAGE_PARAMS)[number]]?: string }

/** A customer's audit events, for itself or for an operator. */
export const audit = new Hono<CustomerEnv>().get('/', c => {
  const customerId = c.get('customerId')
  const query = readQuery(c, [...SPAN_PARAMS, ...PAGE_PARAMS])
  const find = (span: AuditSpan) =>
    inTurn(c, () => listCustomerEvents(c.get('services'), { ...span, customerId }))
  return pageOfEvents(c, query, find, serializerFor(c.get('actor')))
})

export async function pageOfEvents(
  c: AppContext,
  query: PageQuery,
  find: (span: AuditSpan) => Promise<AuditRow[]>,
  serialize: (event: AuditRow) => object,
) {
  const size = pageSize(query.limit)
  const rows = await find({ ...spanOf(query), ...auditPosition(query.cursor), limit: size + 1 })
  const { page, nextCursor } = pageOf(rows, size, event => event.at)
  return json(c, present({ events: page.map(serialize), next_cursor: nextCursor }))
}

export const spanOf = ({ type, from, to }: SpanQuery) => ({
  type: auditType(type),
  from: instant('from', from),
  to: instant('to', to),
})

/** Unknown types are rejected, because a typo would return an empty list as though nothing had happened. */
function auditType(type: string | undefined): AuditType | undefined {
  const known = AUDIT_TYPES.find(each => each === type)
  if (type !== undefined && known === undefined)
    throw new ApiError('invalid_request', `type: one of ${AUDIT_TYPES.join(', ')}`)
  return known
}

function auditPosition(cursor: string | undefined) {
  const position = decodeCursor(cursor)
  if (position && !/^\d{1,15}$/.test(position.id))
    throw new ApiError('invalid_request', 'cursor: send next_cursor of the previous page, or omit it')
  return { beforeAt: position?.at, beforeId: position && Number(position.id) }
}

/** Milliseconds since 1970. */
const YEAR_10000_MS = 253_402_300_800_000
const RFC_3339 = z.iso.datetime({ offset: true })

function instant(name: string, text: string | undefined): Date | undefined {
  if (text === undefined) return undefined
  // RFC 3339 5.6 allows `t` and `z` too.
  const upperCase = text.toUpperCase()
  const at = RFC_3339.safeParse(upperCase).success ? Date.parse(upperCase) : Number.NaN
  if (!(at >= 0 && at < YEAR_10000_MS))
    throw new ApiError('invalid_request', `${name}: a time like 2026-01-31T12:00:00Z`)
  return new Date(at)
}

/** How the actor sees events of its customer. */
export const serializerFor = (actor: string) => (isOperator(actor) ? serializeEvent : serializeForCustomer)

/** Customers see the name of an operator or service, but not where its request came from. */
const serializeForCustomer = (event: AuditRow) =>
  serializeEvent(
    isOperator(event.actor) || isService(event.actor) ? { ...event, ip: null, userAgent: null } : event,
  )

export const serializeEvent = (event: AuditRow) =>
  present({
    id: String(event.id),
    at: event.at,
    type: event.type,
    actor: event.actor,
    subject: event.subject,
    session_id: event.sessionId,
    token_id: event.tokenId,
    ip: event.ip,
    user_agent: event.userAgent,
    detail: event.detail === null ? undefined : JSON.parse(event.detail),
  })
