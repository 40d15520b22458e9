import { Hono } from 'hono'
import { z } from 'zod'
import { REPEATABLE, requestedAudience } from '../http/audience.ts'
import { authenticateApiKey } from '../http/auth.ts'
import { mediaType, readForm, readJson } from '../http/body.ts'
import { clientCredential, publicClientId } from '../http/credentials.ts'
import { type AppContext, type AppEnv, auditContext } from '../http/env.ts'
import { noQuery, present } from '../http/params.ts'
import { parseScope } from '../http/schemas.ts'
import { ApiError } from '../lib/errors.ts'
import { tokenResponse } from './token-response.ts'

const refreshRequest = z.strictObject({ refresh_token: z.string().min(1), scope: z.string().optional() })

/** The refresh token is the credential, in JSON or in a form. */
export const refresh = new Hono<AppEnv>().post('/', noQuery, async c => {
  if (mediaType(c) !== 'application/json') return refreshGrant(c, await readForm(c, REPEATABLE))
  const { refresh_token, scope } = await readJson(c, refreshRequest)
  return refreshGrant(c, new Map(Object.entries(present({ refresh_token, scope })) as [string, string][]))
})

const INVALID_GRANT = "the refresh token is malformed, expired or not this client's; log in again"

/** RFC 6749 6. */
export async function refreshGrant(c: AppContext, form: Map<string, string>) {
  const { tokens, sessions } = c.get('services')
  const text = form.get('refresh_token')
  if (text === undefined) throw new ApiError('invalid_request', 'refresh_token is missing')
  const asked = { scope: parseScope(form.get('scope')), audience: requestedAudience(form) }
  const { customerId, authenticated } = await identifyClient(c, form)
  const verdict = await tokens.verifyRefresh(text)
  if (!verdict.claims || (customerId !== undefined && verdict.claims.client_id !== customerId))
    throw new ApiError('invalid_grant', INVALID_GRANT)
  const context = auditContext(c, `session:${verdict.claims.sid}`)
  return tokenResponse(c, await sessions.refresh({ ...verdict, authenticated }, asked, context))
}

/** Client credentials are optional. If they are sent they must be right, and must match; so must a bare client_id. */
async function identifyClient(
  c: AppContext,
  form: Map<string, string>,
): Promise<{ customerId: string | undefined; authenticated: boolean }> {
  const authorization = c.req.header('authorization')
  const credential = clientCredential(authorization, form)
  if (!credential) return { customerId: publicClientId(authorization, form), authenticated: false }
  const { customerId } = await authenticateApiKey(c.get('services'), credential)
  return { customerId, authenticated: true }
}
