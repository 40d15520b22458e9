import { z } from 'zod'
import { type ApiKeyCaller, apiKey, presentedBy } from '../http/auth.ts'
import { mediaType, readForm, readJson } from '../http/body.ts'
import type { Call, Routes } from '../http/call.ts'
import { auditContextOf, type Services } from '../http/env.ts'
import { idempotencyKey, present } from '../http/params.ts'
import { json, NO_STORE } from '../http/respond.ts'
import { audience, scope, subject } from '../http/schemas.ts'
import { check } from '../http/validate.ts'
import { grantedScope } from '../jwt/scopes.ts'
import { ApiError } from '../lib/errors.ts'
import type { TokenSet } from '../tokens/issuer.ts'
import { assertFitsHeaders } from './identity-headers.ts'

type Needs = Pick<Services, 'config' | 'credentials' | 'issuer' | 'sessions' | 'tokens' | 'proxies'>

export function tokenRoutes(services: Needs): Routes {
  return {
    'POST /issue': issue(services),
    'POST /token': token(services),
    'POST /refresh': refreshEndpoint(services),
    'POST /api/auth/refresh': refreshEndpoint(services),
  }
}

const MAX_CLAIMS_BYTES = 2048

/** No access token of anybody lives longer (s). */
const MAX_TOKEN_TTL_SECONDS = 86_400

const ownClaims = z
  .record(z.string(), z.unknown())
  .refine(
    claims => Buffer.byteLength(JSON.stringify(claims)) <= MAX_CLAIMS_BYTES,
    `at most ${MAX_CLAIMS_BYTES} bytes of JSON`,
  )

const issueRequest = z.strictObject({
  subject: subject.optional(),
  scope: scope.optional(),
  audience: audience.optional(),
  expires_in: z.int().min(1).max(MAX_TOKEN_TTL_SECONDS).optional(),
  claims: ownClaims.optional(),
  refresh: z.boolean().optional(),
})

/** A customer's own tokens, about whom it likes. */
function issue(services: Needs) {
  return async function issue(call: Call) {
    const caller = await apiKey(services.credentials, presentedBy(call, new Map()))
    const request = await readJson(call, issueRequest)
    const grant = {
      ...grantOf(call, services, caller, request.scope),
      subject: request.subject ?? caller.customerId,
      audience: request.audience ?? services.config.issuer,
      ext: request.claims,
      expiresIn: request.expires_in,
    }
    assertFitsHeaders({ ...grant, sub: grant.subject, aud: grant.audience })
    const key = idempotencyKey(call)
    if (!request.refresh) return granted(await services.issuer.issue(grant))
    if (key === undefined) return granted(await services.issuer.start(grant))
    return granted(
      await services.issuer.startOnce(grant, key, JSON.stringify([caller.id, grant.scope, request])),
    )
  }
}

function grantOf(call: Call, services: Needs, caller: ApiKeyCaller, asked: string | undefined) {
  const scope = grantedScope(caller.scope, asked)
  if (scope === undefined)
    throw new ApiError('invalid_scope', 'this API key may not give a scope that was asked for')
  return {
    ...auditContextOf(call, services, `api_key:${caller.id}`),
    customerId: caller.customerId,
    scope,
    exact: asked !== undefined,
    apiKeyId: caller.id,
    type: 'token.issued' as const,
  }
}

/** RFC 6749 4.4 and 6. */
function token(services: Needs) {
  return async function token(call: Call) {
    const form = await readForm(call)
    const grantType = form.get('grant_type')
    if (grantType === 'client_credentials') return clientCredentials(call, services, form)
    if (grantType === 'refresh_token') return refresh(call, services, form)
    throw grantType === undefined
      ? new ApiError('invalid_request', 'grant_type is missing: client_credentials or refresh_token')
      : new ApiError('unsupported_grant_type', 'grant_type: client_credentials or refresh_token')
  }
}

async function clientCredentials(call: Call, services: Needs, form: Map<string, string>) {
  const { config, credentials, issuer } = services
  const caller = await apiKey(credentials, presentedBy(call, form))
  const grant = grantOf(call, services, caller, check(scope.optional(), form.get('scope')))
  const audience = config.issuer
  assertFitsHeaders({ ...grant, sub: caller.customerId, aud: audience, ext: undefined })
  const granting = {
    ...grant,
    subject: caller.customerId,
    audience,
    ext: undefined,
    expiresIn: undefined,
  }
  return granted(await issuer.issue(granting))
}

const refreshRequest = z.strictObject({ refresh_token: z.string().min(1), scope: z.string().optional() })

/** The token is the credential; JSON or form. */
function refreshEndpoint(services: Needs) {
  return async function refreshEndpoint(call: Call) {
    if (mediaType(call) !== 'application/json') return refresh(call, services, await readForm(call))
    const { refresh_token, scope } = await readJson(call, refreshRequest)
    return refresh(
      call,
      services,
      new Map(Object.entries(present({ refresh_token, scope })) as [string, string][]),
    )
  }
}

async function refresh(call: Call, services: Needs, form: Map<string, string>) {
  const text = form.get('refresh_token')
  if (text === undefined) throw new ApiError('invalid_request', 'refresh_token is missing')
  const asked = check(scope.optional(), form.get('scope'))
  const customerId = await refreshingClient(call, services, form)
  const { claims } = await services.tokens.verifyRefresh(text)
  if (!claims || (customerId !== undefined && claims.client_id !== customerId))
    throw new ApiError(
      'invalid_grant',
      "the refresh token is malformed, expired or not this client's; log in again",
    )
  const origin = auditContextOf(call, services, `session:${claims.sid}`)
  return granted(await services.sessions.refresh(claims, asked, origin))
}

/** Client credentials are not needed, but if they come they must be right, and match. A bare client_id must match too. */
async function refreshingClient(
  call: Call,
  { credentials }: Needs,
  form: Map<string, string>,
): Promise<string | undefined> {
  const presented = presentedBy(call, form)
  if (presented === undefined) return form.get('client_id')
  return (await apiKey(credentials, presented)).customerId
}

/** RFC 6749 5.1. */
export function tokenResponse({ accessToken, claims, refreshToken }: TokenSet) {
  return present({
    access_token: accessToken,
    token_type: 'Bearer',
    expires_in: claims.exp - claims.iat,
    refresh_token: refreshToken,
    scope: claims.scope,
    session_id: claims.sid,
  })
}

const granted = (grant: TokenSet) => json(tokenResponse(grant), 200, NO_STORE)
