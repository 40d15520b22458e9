import { z } from 'zod'
import type { AuthenticatedClient } from '../clients/authenticate.ts'
import { authenticated, bearerOf, presentedBy } from '../http/auth.ts'
import { BATCH_LIMIT, readForm, readJson } from '../http/body.ts'
import type { Call, Routes } from '../http/call.ts'
import { ageOf, consistent, type Services } from '../http/env.ts'
import { json, NO_STORE } from '../http/respond.ts'
import type { AccessClaims, RefreshClaims } from '../jwt/claims.ts'
import { scopesOf } from '../jwt/scopes.ts'
import { ApiError } from '../lib/errors.ts'

type Needs = Pick<Services, 'changeFeed' | 'credentials' | 'sessions' | 'tokens' | 'metrics'>

/** RFC 7662. */
export function introspectionRoutes(services: Needs): Routes {
  return {
    'POST /introspect': introspect(services),
    'GET /introspect': introspectSelf(services),
    'POST /introspect/batch': introspectBatch(services),
  }
}

/** Byte for byte the same for everything that is not for this caller to know. */
const INACTIVE = { active: false }

function introspect(services: Needs) {
  return async function introspect(call: Call) {
    const form = await readForm(call)
    const caller = await authenticated(services.credentials, presentedBy(call, form))
    const token = form.get('token')
    if (token === undefined) throw new ApiError('invalid_request', 'token is missing')
    await consistent(call.header('x-consistency'), services.changeFeed)
    return answer(services, (await activities(services, caller, [token]))[0]!)
  }
}

const batchRequest = z.strictObject({ tokens: z.array(z.string()).max(100) })

function introspectBatch(services: Needs) {
  return async function introspectBatch(call: Call) {
    const caller = await authenticated(services.credentials, presentedBy(call, new Map()))
    const { tokens } = await readJson(call, batchRequest, BATCH_LIMIT)
    await consistent(call.header('x-consistency'), services.changeFeed)
    return answer(services, { tokens: await activities(services, caller, tokens) })
  }
}

/** Dovecot's way: the token is the caller. A 401 would be an outage to it, so a bad token is inactive here too. */
function introspectSelf(services: Needs) {
  return async function introspectSelf(call: Call) {
    const token = bearerOf(call.header('authorization'))
    await consistent(call.header('x-consistency'), services.changeFeed)
    const claims = token === undefined ? undefined : await verified(services, token)
    return answer(services, claims ? activeAccess(claims) : INACTIVE)
  }
}

async function verified(
  { tokens, metrics, sessions }: Needs,
  token: string,
): Promise<AccessClaims | undefined> {
  const { claims, refusal } = await tokens.verify(token)
  metrics.verified(refusal)
  if (claims) sessions.markConfirmed(claims)
  return claims
}

/** A refresh token is active to its own customer only: many servers let in whatever token is called active. */
async function activities(services: Needs, caller: AuthenticatedClient, tokens: string[]): Promise<object[]> {
  const access = await services.tokens.verifyAll(tokens)
  const refresh = caller.kind === 'api_key' ? await services.tokens.verifyAllRefresh(tokens) : []
  const own = refresh.flatMap(({ claims }) => (claims && mayKnow(caller, claims) ? [claims] : []))
  const scopes = await services.sessions.refreshable(own)
  return tokens.map((_, i) => {
    const { claims, refusal } = access[i]!
    services.metrics.verified(refusal)
    if (claims) {
      services.sessions.markConfirmed(claims)
      return mayKnow(caller, claims) ? activeAccess(claims) : INACTIVE
    }
    const found = refresh[i]?.claims
    const scope = found && mayKnow(caller, found) ? scopes.get(found.jti) : undefined
    return found && scope !== undefined ? activeRefresh(found, scope) : INACTIVE
  })
}

/** `scope`: of an access token. Where a server is limited to scopes, a token must have one of them. */
function mayKnow(
  caller: AuthenticatedClient,
  { client_id, scope }: { client_id: string; scope?: string },
): boolean {
  if (caller.kind === 'api_key') return caller.customerId === client_id
  const { customers, scopes } = caller
  const ofCustomer = customers === undefined || customers.includes(client_id)
  return ofCustomer && (scopes === undefined || scopesOf(scope).some(one => scopes.includes(one)))
}

/** Member by member: a token that a stolen secret signed may hold others. */
const activeAccess = ({ iss, sub, aud, client_id, exp, iat, jti, sid, ext, scope = '' }: AccessClaims) => ({
  ...{ active: true, iss, sub, aud, client_id, exp, iat, jti, sid, ext },
  ...{ scope, scopes: scopesOf(scope), token_type: 'Bearer' },
})

const activeRefresh = ({ aud, client_id, sub, sid, iat, exp, jti }: RefreshClaims, scope: string) => ({
  ...{ active: true, aud, client_id, sub, sid, iat, exp, jti },
  ...{ scope, scopes: scopesOf(scope) },
})

function answer({ changeFeed }: Needs, body: object) {
  const age = ageOf(changeFeed)
  return json(body, 200, { ...NO_STORE, ...(age !== undefined && { 'X-Assay-Age': age }) })
}
