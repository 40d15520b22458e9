import { z } from 'zod'
import type { Origin } from '../audit.ts'
import { readJson } from './body.ts'
import type { Call, Routes } from './call.ts'
import { type Deps, originOf } from './context.ts'
import { operator } from './operator.ts'
import { noContent } from './respond.ts'
import { waitForAll, waitOf } from './wait.ts'

type Needs = Pick<Deps, 'bus' | 'operators' | 'proxies' | 'revoker' | 'tokens'>

/** By the token itself, whosever it is. */
export const tokenRevocationRoutes = (deps: Needs): Routes => ({ 'POST /admin/revoke': revokeToken(deps) })

const revokeRequest = z.strictObject({ token: z.string().min(1), session: z.boolean().default(false) })

/** One that isn't valid is no error: what was wanted holds. A refresh token ends with its session. */
function revokeToken(deps: Needs) {
  return async function revokeToken(call: Call) {
    const origin = originOf(call, deps, operator(call, deps))
    const wait = waitOf(call)
    const { token, session } = await readJson(call, revokeRequest)
    await waitForAll(deps, wait, await revoked(deps, token, session, origin))
    return noContent()
  }
}

/** Answers the bus's number, if there was anything to end. */
async function revoked({ revoker, tokens }: Needs, token: string, session: boolean, origin: Origin) {
  const refresh = (await tokens.verifyRefresh(token)).claims
  if (refresh) return revoker.end(refresh.client_id, refresh.sid, origin)
  const { claims } = await tokens.verify(token)
  if (!claims) return undefined
  return session && claims.sid !== undefined
    ? revoker.end(claims.client_id, claims.sid, origin)
    : revoker.revokeToken(claims, origin)
}
