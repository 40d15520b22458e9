import { type Context, Hono } from 'hono'
import { z } from 'zod'
import type { AuthenticatedClient } from '../clients/authenticate.ts'
import { assertOwnCustomer, assertSameCustomer, mayServe } from '../clients/served-customer.ts'
import { requireClient, requireFormClient } from '../http/auth.ts'
import { BATCH_LIMIT, readJson } from '../http/body.ts'
import { readBarrier, stateAge } from '../http/consistency.ts'
import { bearerToken, isBearer } from '../http/credentials.ts'
import {
  type ApiKeyClient,
  type AppContext,
  type ClientEnv,
  credentialName,
  type Services,
} from '../http/env.ts'
import { noQuery, readQuery } from '../http/params.ts'
import { bytes, NO_STORE } from '../http/respond.ts'
import { listOf } from '../http/schemas.ts'
import type { RefreshClaims } from '../jwt/claims.ts'
import { scopesOf } from '../jwt/scopes.ts'
import { ApiError } from '../lib/errors.ts'
import type { AuthenticClaims } from '../tokens/authenticator.ts'
import type { Refreshable } from '../tokens/refresh.ts'
import { Proofs } from '../tokens/signatures.ts'
import type { VerifyResult } from '../tokens/verifier.ts'

/** The same bytes for everything that this client may not know. */
const INACTIVE = '{"active":false}'

const batchRequest = z.strictObject({ tokens: listOf(z.string(), { max: 100 }) })

/** RFC 7662. */
export const introspect = new Hono<ClientEnv>()
  .post('/', requireFormClient, noQuery, async c => {
    const token = c.get('form').get('token')
    if (token === undefined) throw new ApiError('invalid_request', 'token is missing')
    const named = c.get('form').get('customer')
    assertOwnCustomer(c.get('client'), named)
    await strictBarrier(c)
    const [answer] = await introspectAll(c.get('services'), c.get('client'), [token], named)
    return wantsJwt(c) ? respondSigned(c, answer!) : respondJson(c, answer!)
  })
  // Dovecot authenticates with the token itself. It treats a 401 as an outage, so an invalid token is inactive here too.
  .get('/', async c => {
    const authorization = c.req.header('authorization')
    // Other clients ask about a token in a parameter, and would mistake an answer about their own credential for its answer.
    if (!isBearer(authorization) || readQuery(c, ['token']).token !== undefined) throw USE_POST
    const token = bearerToken(authorization)
    await strictBarrier(c)
    const claims = token === undefined ? undefined : await verifyToken(c.get('services'), token)
    return respondJson(c, claims ? serializeAccess(claims) : INACTIVE)
  })
  // A batch takes a MiB and a hundred MACs, so each credential has one at a time, from before its body is read.
  .post('/batch', requireClient, noQuery, c =>
    c.get('services').batches.run(credentialName(c.get('client')), () => introspectBatch(c)),
  )

async function introspectBatch(c: Context<ClientEnv>): Promise<Response> {
  takeBytes(c)
  const { tokens } = await readJson(c, batchRequest, BATCH_LIMIT)
  await strictBarrier(c)
  const answers = await introspectAll(c.get('services'), c.get('client'), tokens)
  return respondJson(c, `{"tokens":[${answers.join(',')}]}`)
}

/** Services are the operator's, so they have no limit here. */
function takeBytes(c: Context<ClientEnv>) {
  const client = c.get('client')
  if (client.kind !== 'api_key') return
  const length = Number(c.req.header('content-length')) // NaN without one.
  c.get('services').batchBytes.take(client.customerId, length <= BATCH_LIMIT ? length : BATCH_LIMIT)
}

const USE_POST = new ApiError(
  'invalid_request',
  'use POST with the token in a form; GET only introspects the access token in Authorization: Bearer',
)

const strictBarrier = (c: AppContext) =>
  readBarrier(c.req.header('x-consistency'), c.get('services').changeFeed)

async function verifyToken(
  { tokens, metrics, sessions }: Services,
  token: string,
): Promise<AuthenticClaims | undefined> {
  const { claims, refusal } = await tokens.verify(token)
  metrics.verified(refusal)
  if (claims) sessions.markConfirmed(claims)
  return claims
}

/** The JSON of each token's answer. */
async function introspectAll(
  services: Services,
  client: AuthenticatedClient,
  tokens: string[],
  named?: string,
): Promise<string[]> {
  const proofs = new Proofs()
  const results = await services.tokens.verifyAll(tokens, proofs)
  const refused = tokens.filter((_, i) => results[i]!.claims === undefined)
  if (refused.length === 0 || client.kind === 'service')
    return results.map(result => introspectAccess(services, client, result, named))
  const refresh = await introspectRefresh(services, client, refused)
  // An access token may have been revoked while the sessions were read.
  const latest = await services.tokens.verifyAll(tokens, proofs)
  return latest.map(
    (result, i) => refresh.get(tokens[i]!) ?? introspectAccess(services, client, result, named),
  )
}

function introspectAccess(
  { metrics, sessions }: Services,
  client: AuthenticatedClient,
  { claims, refusal }: VerifyResult<AuthenticClaims>,
  named: string | undefined,
): string {
  metrics.verified(refusal)
  if (!claims) return INACTIVE
  sessions.markConfirmed(claims)
  if (!mayKnow(client, claims)) return INACTIVE
  assertSameCustomer(claims.client_id, named)
  return serializeAccess(claims)
}

/** A refresh token is active only to its own customer: many servers accept any token that is active. */
async function introspectRefresh({ tokens, sessions }: Services, client: ApiKeyClient, texts: string[]) {
  const results = await tokens.verifyAllRefresh(texts)
  const own = results.flatMap(({ claims }) => (claims && mayKnow(client, claims) ? [claims] : []))
  const sessionsByToken = await sessions.refreshable(client.customerId, own)
  const answers = new Map<string, string>()
  for (const [i, { claims }] of results.entries()) {
    const session = claims && mayKnow(client, claims) ? sessionsByToken.get(claims.jti) : undefined
    if (claims && session) answers.set(texts[i]!, serializeRefresh(claims, session))
  }
  return answers
}

/**
 * Whether the client may see the token. If a service is limited to scopes, the token must have one of
 * them.
 */
function mayKnow(
  client: AuthenticatedClient,
  { client_id, scope }: { client_id: string; scope?: string },
): boolean {
  const scopes = client.kind === 'service' ? client.scopes : undefined
  const isInScope = scopes === undefined || scopesOf(scope).some(one => scopes.includes(one))
  return mayServe(client, client_id) && isInScope
}

/**
 * Copies member by member, because a token that was signed with a stolen secret may have other members. `claims` is JSON already.
 */
function serializeAccess({
  iss,
  sub,
  aud,
  client_id,
  exp,
  iat,
  jti,
  sid,
  claimsJson,
  scope = '',
}: AuthenticClaims) {
  const json = JSON.stringify({
    active: true,
    iss,
    sub,
    aud,
    client_id,
    exp,
    iat,
    jti,
    sid,
    scope,
    scopes: scopesOf(scope),
    token_type: 'Bearer',
  })
  return claimsJson === undefined ? json : `${json.slice(0, -1)},"claims":${claimsJson}}`
}

/** `exp` is the idle end of its session, which comes before the token's own unless a refresh extends it. */
const serializeRefresh = (
  { aud, client_id, sub, sid, iat, jti }: RefreshClaims,
  { scope, expiresAt: exp }: Refreshable,
) =>
  JSON.stringify({
    ...{ active: true, aud, client_id, sub, sid, iat, exp, jti },
    ...{ scope, scopes: scopesOf(scope) },
  })

const JWT_TYPE = 'application/token-introspection+jwt'

/** RFC 9701 4. A client that prefers another format does not name this one at all. */
const wantsJwt = (c: AppContext) => c.req.header('accept')?.toLowerCase().includes(JWT_TYPE) === true

/** `answer` is JSON. */
async function respondSigned(c: Context<ClientEnv>, answer: string) {
  const headers = headersOf(c, JWT_TYPE) // Before signing: the age is that of the answer.
  const client = c.get('client')
  const audience = client.kind === 'api_key' ? client.customerId : client.id
  return bytes(c, await c.get('services').introspectionSigner.sign(audience, answer), 200, headers)
}

const respondJson = (c: AppContext, body: string) => bytes(c, body, 200, headersOf(c, 'application/json'))

function headersOf(c: AppContext, type: string) {
  const age = stateAge(c.get('services').changeFeed)
  const headers = { 'Content-Type': type, ...NO_STORE }
  return age === undefined ? headers : { ...headers, 'X-Assay-Age': age }
}
