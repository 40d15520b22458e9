import { Hono } from 'hono'
import { OAuthError } from '../errors.ts'
import type { ListedSession } from '../sessions.ts'
import { account, sessionKeeper } from './caller.ts'
import { type Ctx, type Deps, type Env, originOf } from './context.ts'
import { check, decodeCursor, idOf, pageOf, pageSize, present, readQuery } from './params.ts'
import { json, noContent } from './respond.ts'
import { subject } from './schemas.ts'
import { waitForAll, waitOf } from './wait.ts'

type Needs = Pick<Deps, 'bus' | 'credentials' | 'metrics' | 'proxies' | 'revoker' | 'sessions' | 'tokens'>

/** A customer's sessions, its own and its users'. */
export function sessionRoutes(deps: Needs) {
  return new Hono<Env>()
    .get('/api/sessions', listSessions(deps))
    .delete('/api/sessions', revokeAll(deps))
    .delete('/api/sessions/:id', endSession(deps))
    .post('/api/subjects/:subject/revoke', revokeSubject(deps))
}

function listSessions(deps: Needs) {
  return async function listSessions(c: Ctx) {
    const { customerId } = await sessionKeeper(c, deps)
    const { subject, cursor, limit } = readQuery(c, ['subject', 'cursor', 'limit'])
    const size = pageSize(limit)
    const before = decodeCursor(cursor)
    const position = { beforeAt: before?.at, beforeId: before?.id }
    const rows = await deps.sessions.list({ customerId, subject, ...position, limit: size + 1 })
    const { page, nextCursor } = pageOf(rows, size, session => session.issuedAt)
    return json(c, present({ sessions: page.map(toSession), next_cursor: nextCursor }))
  }
}

function endSession(deps: Needs) {
  return async function endSession(c: Ctx) {
    const { customerId, actor } = await sessionKeeper(c, deps)
    const wait = waitOf(c)
    const seq = await deps.revoker.end(customerId, idOf(c), originOf(c, deps, actor))
    // Before the 404 too: what an earlier try ended may not be known everywhere yet.
    await waitForAll(deps, wait, seq)
    if (seq === undefined) throw new OAuthError('not_found', 'no such session, or it has ended')
    return noContent(c)
  }
}

/** Every token and session, this one too. */
function revokeAll(deps: Needs) {
  return async function revokeAll(c: Ctx) {
    const { client_id, sid } = await account(c, deps)
    const wait = waitOf(c)
    const seq = await deps.revoker.revokeCustomer(client_id, originOf(c, deps, `session:${sid}`))
    await waitForAll(deps, wait, seq)
    return noContent(c)
  }
}

/** Every token and session of one of its users; one who has none is no error, for none is what was wanted. */
function revokeSubject(deps: Needs) {
  return async function revokeSubject(c: Ctx) {
    const { customerId, actor } = await sessionKeeper(c, deps)
    const wait = waitOf(c)
    const named = check(subject, c.req.param('subject'))
    const seq = await deps.revoker.revokeSubject(customerId, named, originOf(c, deps, actor))
    await waitForAll(deps, wait, seq)
    return noContent(c)
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
