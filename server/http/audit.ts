import { z } from 'zod'
import { AUDIT_TYPES, type AuditRow, type AuditType } from '../audit.ts'
import { OAuthError } from '../errors.ts'
import type { Call, Routes } from './call.ts'
import { account } from './caller.ts'
import type { Deps } from './context.ts'
import { decodeCursor, pageOf, pageSize } from './pages.ts'
import { present, readQuery } from './params.ts'
import { json } from './respond.ts'

type Needs = Pick<Deps, 'audit' | 'metrics' | 'sessions' | 'tokens'>

/** A customer's part of the audit. */
export function auditRoutes(deps: Needs): Routes {
  return {
    'GET /api/audit': listEvents(deps),
  }
}

function listEvents(deps: Needs) {
  return async function listEvents(call: Call) {
    const { client_id: customerId } = await account(call, deps)
    const { type, from, to, cursor, limit } = readQuery(call, ['type', 'from', 'to', 'cursor', 'limit'])
    const size = pageSize(limit)
    const query = {
      customerId,
      type: auditType(type),
      from: instant('from', from),
      to: instant('to', to),
      ...auditPosition(cursor),
      limit: size + 1,
    }
    const rows = await deps.audit.list(query)
    const { page, nextCursor } = pageOf(rows, size, event => event.at)
    return json(present({ events: page.map(toEvent), next_cursor: nextCursor }))
  }
}

/** A misspelt one would be answered with an empty list, as though nothing had been done. */
function auditType(type: string | undefined): AuditType | undefined {
  const known = AUDIT_TYPES.find(each => each === type)
  if (type !== undefined && known === undefined)
    throw new OAuthError('invalid_request', `type: one of ${AUDIT_TYPES.join(', ')}`)
  return known
}

function auditPosition(cursor: string | undefined) {
  const position = decodeCursor(cursor)
  if (position && !/^\d{1,15}$/.test(position.id))
    throw new OAuthError('invalid_request', 'cursor: send next_cursor of the page before, or leave it out')
  return { beforeAt: position?.at, beforeId: position && Number(position.id) }
}

/** Milliseconds since 1970. */
const YEAR_10000 = 253_402_300_800_000
const RFC_3339 = z.iso.datetime({ offset: true })

function instant(name: string, text: string | undefined): Date | undefined {
  if (text === undefined) return undefined
  const at = RFC_3339.safeParse(text).success ? Date.parse(text) : Number.NaN
  if (!(at >= 0 && at < YEAR_10000))
    throw new OAuthError('invalid_request', `${name}: a time like 2026-01-31T12:00:00Z`)
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
