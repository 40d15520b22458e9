import { accountKeeper, type Keeper, sessionKeeper } from '../http/auth.ts'
import type { Call, Routes } from '../http/call.ts'
import { waitForAll, waitOf } from '../http/consistency.ts'
import { type Deps, originOf } from '../http/env.ts'
import { decodeCursor, pageOf, pageSize } from '../http/pagination.ts'
import { idOf, present, readQuery } from '../http/params.ts'
import { json, noContent } from '../http/respond.ts'
import { subject } from '../http/schemas.ts'
import { check } from '../http/validate.ts'
import { OAuthError } from '../lib/errors.ts'
import type { ListedSession } from '../tokens/refresh.ts'

type Needs = Pick<Deps, 'bus' | 'credentials' | 'metrics' | 'proxies' | 'revoker' | 'sessions' | 'tokens'>

/** A customer's sessions, its own and its users'. */
export const sessionRoutes = (deps: Needs): Routes => ({
  ...keptSessions(deps, '/api', sessionKeeper(deps)),
  'DELETE /api/sessions': revokeAll(deps, accountKeeper(deps)),
})

/** Those of the customer that the keeper names. */
export const keptSessions = (deps: Needs, base: string, keeper: Keeper): Routes => ({
  [`GET ${base}/sessions`]: listSessions(deps, keeper),
  [`DELETE ${base}/sessions/:id`]: endSession(deps, keeper),
  [`POST ${base}/subjects/:subject/revoke`]: revokeSubject(deps, keeper),
})

function listSessions(deps: Needs, keeper: Keeper) {
  return async function listSessions(call: Call) {
    const { customerId } = await keeper(call)
    const { subject, cursor, limit } = readQuery(call, ['subject', 'cursor', 'limit'])
    const size = pageSize(limit)
    const before = decodeCursor(cursor)
    const position = { beforeAt: before?.at, beforeId: before?.id }
    const rows = await deps.sessions.list({ customerId, subject, ...position, limit: size + 1 })
    const { page, nextCursor } = pageOf(rows, size, session => session.issuedAt)
    return json(present({ sessions: page.map(toSession), next_cursor: nextCursor }))
  }
}

function endSession(deps: Needs, keeper: Keeper) {
  return async function endSession(call: Call) {
    const { customerId, actor } = await keeper(call)
    const wait = waitOf(call)
    const seq = await deps.revoker.end(customerId, idOf(call), originOf(call, deps, actor))
    // Before the 404 too: what an earlier try ended may not be known everywhere yet.
    await waitForAll(deps, wait, seq)
    if (seq === undefined) throw new OAuthError('not_found', 'no such session, or it has ended')
    return noContent()
  }
}

/** Every token and session of the customer, its own too. */
export function revokeAll(deps: Needs, keeper: Keeper) {
  return async function revokeAll(call: Call) {
    const { customerId, actor } = await keeper(call)
    const wait = waitOf(call)
    const seq = await deps.revoker.revokeCustomer(customerId, originOf(call, deps, actor))
    await waitForAll(deps, wait, seq)
    return noContent()
  }
}

/** Every token and session of one of its users; one who has none is no error, for none is what was wanted. */
function revokeSubject(deps: Needs, keeper: Keeper) {
  return async function revokeSubject(call: Call) {
    const { customerId, actor } = await keeper(call)
    const wait = waitOf(call)
    const named = check(subject, call.params.subject)
    const seq = await deps.revoker.revokeSubject(customerId, named, originOf(call, deps, actor))
    await waitForAll(deps, wait, seq)
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
