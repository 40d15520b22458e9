import { z } from 'zod'
import type { Caller } from '../clients/authenticate.ts'
import { authenticated, bearerOf, presentedBy } from '../http/auth.ts'
import { BATCH_LIMIT, readForm, readJson } from '../http/body.ts'
import type { Call, Routes } from '../http/call.ts'
import { ageOf, consistent, type Deps } from '../http/env.ts'
import { json, NO_STORE } from '../http/respond.ts'
import type { AccessClaims, RefreshClaims } from '../jwt/claims.ts'
import { scopesOf } from '../jwt/scopes.ts'
import { OAuthError } from '../lib/errors.ts'

type Needs = Pick<Deps, 'bus' | 'credentials' | 'sessions' | 'tokens' | 'metrics'>

/** RFC 7662. */
export function introspectionRoutes(deps: Needs): Routes {
  return {
    'POST /introspect': introspect(deps),
    'GET /introspect': introspectSelf(deps),
    'POST /introspect/batch': introspectBatch(deps),
  }
}

/** Byte for byte the same for everything that is not for this caller to know. */
const INACTIVE = { active: false }

function introspect(deps: Needs) {
  return async function introspect(call: Call) {
    const form = await readForm(call)
    const caller = await authenticated(deps.credentials, presentedBy(call, form))
    const token = form.get('token')
    if (token === undefined) throw new OAuthError('invalid_request', 'token is missing')
    await consistent(call.header('x-consistency'), deps.bus)
    return answer(deps, (await activities(deps, caller, [token]))[0]!)
  }
}

const batchRequest = z.strictObject({ tokens: z.array(z.string()).max(100) })

function introspectBatch(deps: Needs) {
  return async function introspectBatch(call: Call) {
    const caller = await authenticated(deps.credentials, presentedBy(call, new Map()))
    const { tokens } = await readJson(call, batchRequest, BATCH_LIMIT)
    await consistent(call.header('x-consistency'), deps.bus)
    return answer(deps, { tokens: await activities(deps, caller, tokens) })
  }
}

/** Dovecot's way: the token is the caller. A 401 would be an outage to it, so a bad token is inactive here too. */
function introspectSelf(deps: Needs) {
  return async function introspectSelf(call: Call) {
    const token = bearerOf(call.header('authorization'))
    await consistent(call.header('x-consistency'), deps.bus)
    const claims = token === undefined ? undefined : await verified(deps, token)
    return answer(deps, claims ? activeAccess(claims) : INACTIVE)
  }
}

async function verified(
  { tokens, metrics, sessions }: Needs,
  token: string,
): Promise<AccessClaims | undefined> {
  const { claims, refusal } = await tokens.verify(token)
  metrics.verified(refusal)
  if (claims) sessions.noteSeen(claims)
  return claims
}

/** A refresh token is active to its own customer only: many servers let in whatever token is called active. */
async function activities(deps: Needs, caller: Caller, tokens: string[]): Promise<object[]> {
  const access = await deps.tokens.verifyAll(tokens)
  const refresh = caller.kind === 'api_key' ? await deps.tokens.verifyAllRefresh(tokens) : []
  const own = refresh.flatMap(({ claims }) => (claims && mayKnow(caller, claims) ? [claims] : []))
  const scopes = await deps.sessions.refreshable(own)
  return tokens.map((_, i) => {
    const { claims, refusal } = access[i]!
    deps.metrics.verified(refusal)
    if (claims) {
      deps.sessions.noteSeen(claims)
      return mayKnow(caller, claims) ? activeAccess(claims) : INACTIVE
    }
    const found = refresh[i]?.claims
    const scope = found && mayKnow(caller, found) ? scopes.get(found.jti) : undefined
    return found && scope !== undefined ? activeRefresh(found, scope) : INACTIVE
  })
}

/** `scope`: of an access token. Where a server is limited to scopes, a token must have one of them. */
function mayKnow(caller: Caller, { client_id, scope }: { client_id: string; scope?: string }): boolean {
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

function answer({ bus }: Needs, body: object) {
  const age = ageOf(bus)
  return json(body, 200, { ...NO_STORE, ...(age !== undefined && { 'X-Assay-Age': age }) })
}
