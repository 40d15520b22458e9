import { z } from 'zod'
import type { AuditContext } from '../../audit/audit.ts'
import { readJson } from '../../http/body.ts'
import type { Call, Routes } from '../../http/call.ts'
import { waitForAll, waitOf } from '../../http/consistency.ts'
import { auditContextOf, type Services } from '../../http/env.ts'
import { noContent } from '../../http/respond.ts'
import { operator } from './operator.ts'

type Needs = Pick<Services, 'changeFeed' | 'operators' | 'proxies' | 'revoker' | 'tokens'>

/** By the token itself, whosever it is; or of everyone. */
export const tokenRevocationRoutes = (services: Needs): Routes => ({ 'POST /admin/revoke': revoke(services) })

const revokeRequest = z.union(
  [
    z.strictObject({ token: z.string().min(1), session: z.boolean().default(false) }),
    z.strictObject({ everyone: z.literal(true) }),
  ],
  'token, with session or without; or everyone: true, alone, for every token of every customer',
)

/** A token that isn't valid is no error: what was wanted holds. A refresh token ends with its session. */
function revoke(services: Needs) {
  return async function revoke(call: Call) {
    const origin = auditContextOf(call, services, operator(call, services))
    const wait = waitOf(call)
    const asked = await readJson(call, revokeRequest)
    const seq =
      'everyone' in asked
        ? await services.revoker.revokeEveryone(origin)
        : await revokeToken(services, asked.token, asked.session, origin)
    await waitForAll(services, wait, seq)
    return noContent()
  }
}

/** Answers the change feed's number, if there was anything to end. */
async function revokeToken(
  { revoker, tokens }: Needs,
  token: string,
  session: boolean,
  origin: AuditContext,
) {
  const refresh = (await tokens.verifyRefresh(token)).claims
  if (refresh) return revoker.end(refresh.client_id, refresh.sid, origin)
  const { claims } = await tokens.verify(token)
  if (!claims) return undefined
  return session && claims.sid !== undefined
    ? revoker.end(claims.client_id, claims.sid, origin)
    : revoker.revokeToken(claims, origin)
}
