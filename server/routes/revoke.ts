import { apiKey, presentedBy } from '../http/auth.ts'
import { readForm } from '../http/body.ts'
import type { Call, Routes } from '../http/call.ts'
import { auditContextOf, type Services } from '../http/env.ts'
import { onePerName } from '../http/params.ts'
import { json, NO_STORE } from '../http/respond.ts'
import type { AccessClaims, RefreshClaims } from '../jwt/claims.ts'
import { ApiError } from '../lib/errors.ts'

type Needs = Pick<Services, 'changeFeed' | 'credentials' | 'revoker' | 'tokens' | 'proxies'>

/** RFC 7009. */
export function revocationRoutes(services: Needs): Routes {
  return {
    'POST /revoke': revoke(services),
  }
}

/** An unknown token is 200 too: what the caller wanted holds. */
function revoke(services: Needs) {
  return async function revoke(call: Call) {
    const form = await readForm(call)
    const query = onePerName(new URLSearchParams(call.query))
    const wait = flag(form, query, 'wait', ['all'])
    const wholeSession = flag(form, query, 'session', ['true', 'false']) === 'true'
    const token = form.get('token')
    if (token === undefined) throw new ApiError('invalid_request', 'token is missing')
    const seq = await revoked(call, services, form, token, wholeSession)
    // Without a number too: what an earlier try revoked may not be known everywhere yet.
    if (wait) await services.changeFeed.waitForReplicas(seq)
    return json({}, 200, NO_STORE)
  }
}

function flag(form: Map<string, string>, query: Map<string, string>, name: string, values: string[]) {
  const value = query.get(name) ?? form.get(name)
  if (value !== undefined && !values.includes(value))
    throw new ApiError('invalid_request', `${name}: ${values.join(' or ')}, or leave it out`)
  return value
}

/** Answers the change feed's number, or undefined when nothing was left to revoke. */
async function revoked(
  call: Call,
  services: Needs,
  form: Map<string, string>,
  token: string,
  wholeSession: boolean,
) {
  const presented = presentedBy(call, form)
  const caller = presented && (await apiKey(services.credentials, presented))
  const refresh = (await services.tokens.verifyRefresh(token)).claims
  const clientId = form.get('client_id') ?? refresh?.client_id
  if (refresh)
    return mayRevoke(caller, refresh, clientId) ? end(call, services, refresh, caller?.id) : undefined
  const { claims } = await services.tokens.verify(token)
  if (!caller && claims)
    throw new ApiError('invalid_client', 'send an API key; only a refresh token can be revoked without one')
  if (!caller || !claims || !mayRevoke(caller, claims)) return undefined
  if (wholeSession && claims.sid !== undefined)
    return end(call, services, { ...claims, sid: claims.sid }, caller.id)
  return services.revoker.revokeToken(claims, auditContextOf(call, services, `api_key:${caller.id}`))
}

/** Its own customer's API key, or whoever has the refresh token itself and names no other client. */
const mayRevoke = (
  caller: { customerId: string } | undefined,
  { client_id }: AccessClaims | RefreshClaims,
  named = client_id,
) => (caller?.customerId ?? named) === client_id

function end(
  call: Call,
  services: Needs,
  { client_id, sid }: { client_id: string; sid: string },
  apiKeyId: string | undefined,
) {
  const origin = auditContextOf(
    call,
    services,
    apiKeyId === undefined ? `session:${sid}` : `api_key:${apiKeyId}`,
  )
  return services.revoker.end(client_id, sid, origin)
}
