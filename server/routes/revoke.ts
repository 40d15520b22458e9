import { apiKey, presentedBy } from '../http/auth.ts'
import { readForm } from '../http/body.ts'
import type { Call, Routes } from '../http/call.ts'
import { type Deps, originOf } from '../http/env.ts'
import { onePerName } from '../http/params.ts'
import { json, NO_STORE } from '../http/respond.ts'
import type { AccessClaims, RefreshClaims } from '../jwt/claims.ts'
import { OAuthError } from '../lib/errors.ts'

type Needs = Pick<Deps, 'bus' | 'credentials' | 'revoker' | 'tokens' | 'proxies'>

/** RFC 7009. */
export function revocationRoutes(deps: Needs): Routes {
  return {
    'POST /revoke': revoke(deps),
  }
}

/** An unknown token is 200 too: what the caller wanted holds. */
function revoke(deps: Needs) {
  return async function revoke(call: Call) {
    const form = await readForm(call)
    const query = onePerName(new URLSearchParams(call.query))
    const wait = flag(form, query, 'wait', ['all'])
    const wholeSession = flag(form, query, 'session', ['true', 'false']) === 'true'
    const token = form.get('token')
    if (token === undefined) throw new OAuthError('invalid_request', 'token is missing')
    const seq = await revoked(call, deps, form, token, wholeSession)
    // Without a number too: what an earlier try revoked may not be known everywhere yet.
    if (wait) await deps.bus.everywhere(seq)
    return json({}, 200, NO_STORE)
  }
}

function flag(form: Map<string, string>, query: Map<string, string>, name: string, values: string[]) {
  const value = query.get(name) ?? form.get(name)
  if (value !== undefined && !values.includes(value))
    throw new OAuthError('invalid_request', `${name}: ${values.join(' or ')}, or leave it out`)
  return value
}

/** Answers the bus's number, or undefined when nothing was left to revoke. */
async function revoked(
  call: Call,
  deps: Needs,
  form: Map<string, string>,
  token: string,
  wholeSession: boolean,
) {
  const presented = presentedBy(call, form)
  const caller = presented && (await apiKey(deps.credentials, presented))
  const refresh = (await deps.tokens.verifyRefresh(token)).claims
  const clientId = form.get('client_id') ?? refresh?.client_id
  if (refresh) return mayRevoke(caller, refresh, clientId) ? end(call, deps, refresh, caller?.id) : undefined
  const { claims } = await deps.tokens.verify(token)
  if (!caller && claims)
    throw new OAuthError('invalid_client', 'send an API key; only a refresh token can be revoked without one')
  if (!caller || !claims || !mayRevoke(caller, claims)) return undefined
  if (wholeSession && claims.sid !== undefined)
    return end(call, deps, { ...claims, sid: claims.sid }, caller.id)
  return deps.revoker.revokeToken(claims, originOf(call, deps, `api_key:${caller.id}`))
}

/** Its own customer's API key, or whoever has the refresh token itself and names no other client. */
const mayRevoke = (
  caller: { customerId: string } | undefined,
  { client_id }: AccessClaims | RefreshClaims,
  named = client_id,
) => (caller?.customerId ?? named) === client_id

function end(
  call: Call,
  deps: Needs,
  { client_id, sid }: { client_id: string; sid: string },
  apiKeyId: string | undefined,
) {
  const origin = originOf(call, deps, apiKeyId === undefined ? `session:${sid}` : `api_key:${apiKeyId}`)
  return deps.revoker.end(client_id, sid, origin)
}
