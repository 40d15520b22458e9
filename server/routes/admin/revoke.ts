import { Hono } from 'hono'
import { z } from 'zod'
import type { AuditContext } from '../../audit/audit.ts'
import { actAndWait } from '../../http/act.ts'
import { readJson } from '../../http/body.ts'
import type { OperatorEnv, Services } from '../../http/env.ts'
import { noContent } from '../../http/respond.ts'

const revokeRequest = z.union(
  [
    z.strictObject({ token: z.string().min(1), session: z.boolean().default(false) }),
    z.strictObject({ everyone: z.literal(true) }),
  ],
  'send token and optionally session, or only everyone: true to revoke every token of every customer',
)

/** Revokes one token of any customer, or every token of everyone. A token that isn't valid is no error. */
export const adminRevoke = new Hono<OperatorEnv>().post('/', async c => {
  await actAndWait(c, async (services, context) => {
    const request = await readJson(c, revokeRequest)
    return 'everyone' in request
      ? services.revoker.revokeEveryone(context)
      : revokeToken(services, request, context)
  })
  return noContent(c)
})

/** A refresh token ends with its session. Returns the change feed's number, if there was anything to end. */
async function revokeToken(
  { revoker, tokens }: Services,
  { token, session }: { token: string; session: boolean },
  context: AuditContext,
) {
  const refresh = (await tokens.verifyRefresh(token)).claims
  if (refresh) return revoker.end(refresh.client_id, refresh.sid, context)
  const { claims } = await tokens.verify(token)
  if (!claims) return undefined
  return session && claims.sid !== undefined
    ? revoker.end(claims.client_id, claims.sid, context)
    : revoker.revokeToken(claims, context)
}
