import { type Context, Hono } from 'hono'
import { z } from 'zod'
import { isOperator } from '../audit/actor.ts'
import { actAndWait } from '../http/act.ts'
import { readJson } from '../http/body.ts'
import type { CustomerEnv } from '../http/env.ts'
import { inTurn } from '../http/in-turn.ts'
import { decodeCursor, pageOf, pageSize } from '../http/pagination.ts'
import { idParam, present, readQuery } from '../http/params.ts'
import { json, noContent } from '../http/respond.ts'
import { subject } from '../http/schemas.ts'
import { ApiError } from '../lib/errors.ts'
import type { ListedSession } from '../tokens/refresh.ts'

/** A customer's sessions, its own and its users'. */
export const sessions = new Hono<CustomerEnv>()
  .get('/', async c => {
    const { subject, cursor, limit } = readQuery(c, ['subject', 'cursor', 'limit'])
    const size = pageSize(limit)
    const before = decodeCursor(cursor)
    const position = { beforeAt: before?.at, beforeId: before?.id, limit: size + 1 }
    const customerId = c.get('customerId')
    const rows = await inTurn(c, () => c.get('services').sessions.list({ customerId, subject, ...position }))
    const { page, nextCursor } = pageOf(rows, size, session => session.issuedAt)
    return json(c, present({ sessions: page.map(serializeSession), next_cursor: nextCursor }))
  })
  .delete('/:id', async c => {
    const seq = await actAndWait(c, ({ revoker }, context) =>
      revoker.end(c.get('customerId'), idParam(c), context),
    )
    if (seq === undefined)
      throw new ApiError('not_found', 'no such session, or it has already ended; check the id')
    return noContent(c)
  })

const revokeSubjectRequest = z.strictObject({ subject })

/**
 * Revokes every token and session of one of the customer's users. A subject without any is no error. The subject is in the body,
 * because URL parsers resolve `/subjects/../revoke` to the path that revokes the whole customer.
 */
export const subjects = new Hono<CustomerEnv>().post('/revoke', async c => {
  await actAndWait(c, async ({ revoker }, context) => {
    const { subject } = await readJson(c, revokeSubjectRequest)
    const limited = !isOperator(context.actor)
    return revoker.revokeSubject(c.get('customerId'), subject, context, { limited })
  })
  return noContent(c)
})

/** Revokes every token and session of the customer, its own too. */
export async function revokeCustomer(c: Context<CustomerEnv>) {
  await actAndWait(c, ({ revoker }, context) => revoker.revokeCustomer(c.get('customerId'), context))
  return noContent(c)
}

const serializeSession = (session: ListedSession) =>
  present({
    id: session.id,
    subject: session.subject,
    scope: session.scope || undefined,
    audience: JSON.parse(session.audience),
    generation: session.gen,
    created_at: session.issuedAt,
    refreshed_at: lastRefresh(session),
    expires_at: session.expiresAt,
    ends_at: session.endsAt,
    ip: session.ip,
    user_agent: session.userAgent,
  })

/** When its token was last rotated or kept; undefined if it was never refreshed. */
function lastRefresh({ gen, rotatedAt, renewedAt }: ListedSession): Date | undefined {
  if (gen === 1 || (renewedAt && renewedAt > rotatedAt)) return renewedAt ?? undefined
  return rotatedAt
}
