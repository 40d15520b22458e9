import { accountKeeper, type Keeper, sessionKeeper } from '../http/auth.ts'
import type { Call, Routes } from '../http/call.ts'
import { waitForAll, waitOf } from '../http/consistency.ts'
import { auditContextOf, type Services } from '../http/env.ts'
import { decodeCursor, pageOf, pageSize } from '../http/pagination.ts'
import { idOf, present, readQuery } from '../http/params.ts'
import { json, noContent } from '../http/respond.ts'
import { subject } from '../http/schemas.ts'
import { check } from '../http/validate.ts'
import { ApiError } from '../lib/errors.ts'
import type { ListedSession } from '../tokens/refresh.ts'

type Needs = Pick<
  Services,
  'changeFeed' | 'credentials' | 'metrics' | 'proxies' | 'revoker' | 'sessions' | 'tokens'
>

/** A customer's sessions, its own and its users'. */
export const sessionRoutes = (services: Needs): Routes => ({
  ...keptSessions(services, '/api', sessionKeeper(services)),
  'DELETE /api/sessions': revokeAll(services, accountKeeper(services)),
})

/** Those of the customer that the keeper names. */
export const keptSessions = (services: Needs, base: string, keeper: Keeper): Routes => ({
  [`GET ${base}/sessions`]: listSessions(services, keeper),
  [`DELETE ${base}/sessions/:id`]: endSession(services, keeper),
  [`POST ${base}/subjects/:subject/revoke`]: revokeSubject(services, keeper),
})

function listSessions(services: Needs, keeper: Keeper) {
  return async function listSessions(call: Call) {
    const { customerId } = await keeper(call)
    const { subject, cursor, limit } = readQuery(call, ['subject', 'cursor', 'limit'])
    const size = pageSize(limit)
    const before = decodeCursor(cursor)
    const position = { beforeAt: before?.at, beforeId: before?.id }
    const rows = await services.sessions.list({ customerId, subject, ...position, limit: size + 1 })
    const { page, nextCursor } = pageOf(rows, size, session => session.issuedAt)
    return json(present({ sessions: page.map(toSession), next_cursor: nextCursor }))
  }
}

function endSession(services: Needs, keeper: Keeper) {
  return async function endSession(call: Call) {
    const { customerId, actor } = await keeper(call)
    const wait = waitOf(call)
    const seq = await services.revoker.end(customerId, idOf(call), auditContextOf(call, services, actor))
    // Before the 404 too: what an earlier try ended may not be known everywhere yet.
    await waitForAll(services, wait, seq)
    if (seq === undefined) throw new ApiError('not_found', 'no such session, or it has ended')
    return noContent()
  }
}

/** Every token and session of the customer, its own too. */
export function revokeAll(services: Needs, keeper: Keeper) {
  return async function revokeAll(call: Call) {
    const { customerId, actor } = await keeper(call)
    const wait = waitOf(call)
    const seq = await services.revoker.revokeCustomer(customerId, auditContextOf(call, services, actor))
    await waitForAll(services, wait, seq)
    return noContent()
  }
}

/** Every token and session of one of its users; one who has none is no error, for none is what was wanted. */
function revokeSubject(services: Needs, keeper: Keeper) {
  return async function revokeSubject(call: Call) {
    const { customerId, actor } = await keeper(call)
    const wait = waitOf(call)
    const named = check(subject, call.params.subject)
    const seq = await services.revoker.revokeSubject(customerId, named, auditContextOf(call, services, actor))
    await waitForAll(services, wait, seq)
    return noContent()
  }
}

const toSession = (session: ListedSession) =>
  present({
    id: session.id,
    subject: session.subject,
    scope: session.scope || undefined,
    audience: JSON.parse(session.audience),
    generation: session.gen,
    created_at: session.issuedAt,
    refreshed_at: session.gen > 1 ? session.rotatedAt : undefined,
    expires_at: session.expiresAt,
    ends_at: session.endsAt,
    ip: session.ip,
    user_agent: session.userAgent,
  })
