import { Hono } from 'hono'
import type { AuthenticatedClient } from '../clients/authenticate.ts'
import { assertOwnCustomer, assertSameCustomer, mayServe } from '../clients/served-customer.ts'
import { authenticateClient } from '../http/auth.ts'
import { readForm } from '../http/body.ts'
import { clientCredential, publicClientId } from '../http/credentials.ts'
import { type AppContext, type AppEnv, auditContext, credentialName } from '../http/env.ts'
import { readQuery } from '../http/params.ts'
import { json } from '../http/respond.ts'
import { routeName } from '../http/route.ts'
import type { AccessClaims, RefreshClaims } from '../jwt/claims.ts'
import { ApiError } from '../lib/errors.ts'

type Params = Map<string, string>

/** RFC 7009. An unknown token is 200 too, because it is already invalid, which is what the caller wants. */
export const revoke = new Hono<AppEnv>().post('/', async c => {
  const form = await readForm(c)
  const query = readQuery(c, ['wait', 'session'])
  const wait = option('wait', ['all'], form, query.wait)
  const wholeSession = option('session', ['true', 'false'], form, query.session) === 'true'
  const token = form.get('token')
  if (token === undefined) throw new ApiError('invalid_request', 'token is missing')
  const seq = await revokeToken(c, form, token, wholeSession)
  // Wait even without a number: an earlier attempt's revocation may not have reached every replica yet.
  if (wait) await c.get('services').changeFeed.waitForReplicas(seq)
  return json(c, {})
})

/** An option that may be in the form or in the query. */
function option(name: string, values: string[], form: Params, inQuery: string | undefined) {
  const inForm = form.get(name)
  if (inForm !== undefined && inQuery !== undefined)
    throw new ApiError('invalid_request', `${name}: send it in the form or in the query, not both`)
  const value = inForm ?? inQuery
  if (value !== undefined && !values.includes(value))
    throw new ApiError('invalid_request', `${name}: send ${values.join(' or ')}, or omit it`)
  return value
}

/** Returns the change feed's number, or undefined when nothing was left to revoke. */
async function revokeToken(c: AppContext, form: Params, token: string, wholeSession: boolean) {
  const services = c.get('services')
  const credential = clientCredential(c.req.header('authorization'), form)
  const client = credential && (await authenticateClient(services, credential, routeName(c)))
  assertOwnCustomer(client, form.get('customer'))
  const refresh = (await services.tokens.verifyRefresh(token)).claims
  const clientId = publicClientId(c.req.header('authorization'), form) ?? refresh?.client_id
  if (refresh && !mayRevoke(client, refresh, clientId)) return undefined
  if (refresh) return endSession(c, sameCustomer(refresh, form), client)
  const { claims } = await services.tokens.verify(token)
  if (!client && claims)
    throw new ApiError('invalid_client', 'send a credential; only a refresh token can be revoked without one')
  if (!client || !claims || !mayRevoke(client, claims)) return undefined
  sameCustomer(claims, form)
  if (wholeSession && claims.sid !== undefined) return endSession(c, { ...claims, sid: claims.sid }, client)
  return services.revoker.revokeToken(claims, auditContext(c, credentialName(client)))
}

/** Returns the claims. Throws `invalid_request` if the form names another customer. */
function sameCustomer<Claims extends { client_id: string }>(claims: Claims, form: Params): Claims {
  assertSameCustomer(claims.client_id, form.get('customer'))
  return claims
}

/**
 * A client may revoke the tokens of the customers that it acts for. Without one, the refresh token itself suffices if `client_id`
 * matches.
 */
const mayRevoke = (
  client: AuthenticatedClient | undefined,
  { client_id }: AccessClaims | RefreshClaims,
  named = client_id,
) => (client ? mayServe(client, client_id) : named === client_id)

function endSession(
  c: AppContext,
  { client_id, sid }: { client_id: string; sid: string },
  client: AuthenticatedClient | undefined,
) {
  const actor = client === undefined ? `session:${sid}` : credentialName(client)
  return c.get('services').revoker.end(client_id, sid, auditContext(c, actor))
}
