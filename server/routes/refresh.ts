import { Hono } from 'hono'
import { z } from 'zod'
import type { AuthenticatedClient } from '../clients/authenticate.ts'
import { assertOwnCustomer, assertSameCustomer, mayServe } from '../clients/served-customer.ts'
import { REPEATABLE, requestedAudience } from '../http/audience.ts'
import { authenticateClient } from '../http/auth.ts'
import { mediaType, readForm, readJson } from '../http/body.ts'
import { clientCredential, publicClientId } from '../http/credentials.ts'
import { type AppContext, type AppEnv, auditContext, credentialName } from '../http/env.ts'
import { noQuery, present } from '../http/params.ts'
import { routeName } from '../http/route.ts'
import { parseScope } from '../http/schemas.ts'
import type { RefreshClaims } from '../jwt/claims.ts'
import { ApiError } from '../lib/errors.ts'
import { tokenResponse } from './token-response.ts'

const refreshRequest = z.strictObject({
  refresh_token: z.string().min(1),
  scope: z.string().optional(),
  customer: z.string().optional(),
})

/** The refresh token is the credential, in JSON or in a form. */
export const refresh = new Hono<AppEnv>().post('/', noQuery, async c => {
  if (mediaType(c) !== 'application/json') return refreshGrant(c, await readForm(c, REPEATABLE), routeName(c))
  const { refresh_token, scope, customer } = await readJson(c, refreshRequest)
  const members = present({ refresh_token, scope, customer })
  return refreshGrant(c, new Map(Object.entries(members) as [string, string][]), routeName(c))
})

const INVALID_GRANT = "the refresh token is malformed, expired or not this client's; log in again"

/** RFC 6749 6. `route`: as in RIGHT_OF_ROUTE, for a service. */
export async function refreshGrant(c: AppContext, form: Map<string, string>, route: string) {
  const { tokens, sessions } = c.get('services')
  const text = form.get('refresh_token')
  if (text === undefined) throw new ApiError('invalid_request', 'refresh_token is missing')
  const asked = { scope: parseScope(form.get('scope')), audience: requestedAudience(form) }
  const { client, clientId } = await identifyClient(c, form, route)
  assertOwnCustomer(client, form.get('customer'))
  const verdict = await tokens.verifyRefresh(text)
  if (!verdict.claims || !mayRefresh(client, clientId, verdict.claims))
    throw new ApiError('invalid_grant', INVALID_GRANT)
  assertSameCustomer(verdict.claims.client_id, form.get('customer'))
  const actor = client?.kind === 'service' ? credentialName(client) : `session:${verdict.claims.sid}`
  const presented = { ...verdict, authenticated: client !== undefined }
  return tokenResponse(c, await sessions.refresh(presented, asked, auditContext(c, actor)))
}

interface IdentifiedClient {
  client?: AuthenticatedClient
  /** The client names itself like this if it sends no secret. */
  clientId?: string | undefined
}

/** Client credentials are optional. If they are sent they must be right, and must match; so must a bare client_id. */
async function identifyClient(
  c: AppContext,
  form: Map<string, string>,
  route: string,
): Promise<IdentifiedClient> {
  const authorization = c.req.header('authorization')
  const credential = clientCredential(authorization, form)
  if (!credential) return { clientId: publicClientId(authorization, form) }
  return { client: await authenticateClient(c.get('services'), credential, route) }
}

/** The refresh token itself suffices, unless another client sends it. */
const mayRefresh = (
  client: AuthenticatedClient | undefined,
  clientId: string | undefined,
  { client_id: customerId }: RefreshClaims,
) => (client ? mayServe(client, customerId) : clientId === undefined || clientId === customerId)
