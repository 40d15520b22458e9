import { Hono } from 'hono'
import { z } from 'zod'
import type { AuthenticatedClient } from '../clients/authenticate.ts'
import { requireClient, requireFormClient } from '../http/auth.ts'
import { BATCH_LIMIT, readJson } from '../http/body.ts'
import { readBarrier, stateAge } from '../http/consistency.ts'
import { bearerToken } from '../http/credentials.ts'
import type { AppContext, ClientEnv, Services } from '../http/env.ts'
import { json, NO_STORE } from '../http/respond.ts'
import type { AccessClaims, RefreshClaims } from '../jwt/claims.ts'
import { scopesOf } from '../jwt/scopes.ts'
import { ApiError } from '../lib/errors.ts'

/** Byte for byte the same for everything that this client may not know. */
const INACTIVE = { active: false }

const batchRequest = z.strictObject({ tokens: z.array(z.string()).max(100) })

/** RFC 7662. */
export const introspect = new Hono<ClientEnv>()
  .post('/', requireFormClient, async c => {
    const token = c.get('form').get('token')
    if (token === undefined) throw new ApiError('invalid_request', 'token is missing')
    await strictBarrier(c)
    const [answer] = await introspectAll(c.get('services'), c.get('client'), [token])
    return respondWithAge(c, answer!)
  })
  // Dovecot's way: the token itself is the caller. It takes a 401 for an outage, so a bad token is inactive here too.
  .get('/', async c => {
    const token = bearerToken(c.req.header('authorization'))
    await strictBarrier(c)
    const claims = token === undefined ? undefined : await verifyToken(c.get('services'), token)
    return respondWithAge(c, claims ? serializeAccess(claims) : INACTIVE)
  })
  .post('/batch', requireClient, async c => {
    const { tokens } = await readJson(c, batchRequest, BATCH_LIMIT)
    await strictBarrier(c)
    return respondWithAge(c, { tokens: await introspectAll(c.get('services'), c.get('client'), tokens) })
  })

const strictBarrier = (c: AppContext) =>
  readBarrier(c.req.header('x-consistency'), c.get('services').changeFeed)

async function verifyToken(
  { tokens, metrics, sessions }: Services,
  token: string,
): Promise<AccessClaims | undefined> {
  const { claims, refusal } = await tokens.verify(token)
  metrics.verified(refusal)
  if (claims) sessions.markConfirmed(claims)
  return claims
}

/** A refresh token is active only to its own customer: many servers admit any token that is called active. */
async function introspectAll(
  services: Services,
  client: AuthenticatedClient,
  tokens: string[],
): Promise<object[]> {
  const access = await services.tokens.verifyAll(tokens)
  const refresh = client.kind === 'api_key' ? await services.tokens.verifyAllRefresh(tokens) : []
  const own = refresh.flatMap(({ claims }) => (claims && mayKnow(client, claims) ? [claims] : []))
  const scopes = await services.sessions.refreshable(own)
  return tokens.map((_, i) => {
    const { claims, refusal } = access[i]!
    services.metrics.verified(refusal)
    if (claims) {
      services.sessions.markConfirmed(claims)
      return mayKnow(client, claims) ? serializeAccess(claims) : INACTIVE
    }
    const found = refresh[i]?.claims
    const scope = found && mayKnow(client, found) ? scopes.get(found.jti) : undefined
    return found && scope !== undefined ? serializeRefresh(found, scope) : INACTIVE
  })
}

/** `scope`: of an access token. Where a server is limited to scopes, a token must have one of them. */
function mayKnow(
  client: AuthenticatedClient,
  { client_id, scope }: { client_id: string; scope?: string },
): boolean {
  if (client.kind === 'api_key') return client.customerId === client_id
  const { customers, scopes } = client
  const isOfCustomer = customers === undefined || customers.includes(client_id)
  return isOfCustomer && (scopes === undefined || scopesOf(scope).some(one => scopes.includes(one)))
}

/** Member by member: a token that a stolen secret signed may hold others. */
const serializeAccess = ({
  iss,
  sub,
  aud,
  client_id,
  exp,
  iat,
  jti,
  sid,
  ext,
  scope = '',
}: AccessClaims) => ({
  ...{ active: true, iss, sub, aud, client_id, exp, iat, jti, sid, ext },
  ...{ scope, scopes: scopesOf(scope), token_type: 'Bearer' },
})

const serializeRefresh = ({ aud, client_id, sub, sid, iat, exp, jti }: RefreshClaims, scope: string) => ({
  ...{ active: true, aud, client_id, sub, sid, iat, exp, jti },
  ...{ scope, scopes: scopesOf(scope) },
})

function respondWithAge(c: AppContext, body: object) {
  const age = stateAge(c.get('services').changeFeed)
  return json(c, body, 200, { ...NO_STORE, ...(age !== undefined && { 'X-Assay-Age': age }) })
}
