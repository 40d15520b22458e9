import { Hono } from 'hono'
import { z } from 'zod'
import type { Config } from '../config.ts'
import { OAuthError } from '../errors.ts'
import { assertFitsHeaders } from '../identity.ts'
import type { Granted } from '../issuing.ts'
import { grantedScope } from '../scope.ts'
import { type ApiKeyCaller, apiKey, presentedBy } from './caller.ts'
import { type Ctx, type Deps, type Env, originOf } from './context.ts'
import { check, mediaType, present, readForm, readJson } from './params.ts'
import { json, NO_STORE } from './respond.ts'
import { audience, scope, subject } from './schemas.ts'

type Needs = Pick<Deps, 'config' | 'credentials' | 'issuer' | 'sessions' | 'tokens' | 'proxies'>

export function tokenRoutes(deps: Needs) {
  return new Hono<Env>()
    .post('/issue', issue(deps))
    .post('/token', token(deps))
    .post('/refresh', refreshEndpoint(deps))
    .post('/api/auth/refresh', refreshEndpoint(deps))
}

const CLAIMS_LIMIT = 2048

const ownClaims = z
  .record(z.string(), z.unknown())
  .refine(
    claims => Buffer.byteLength(JSON.stringify(claims)) <= CLAIMS_LIMIT,
    `at most ${CLAIMS_LIMIT} bytes of JSON`,
  )

const issueRequest = z.strictObject({
  subject: subject.optional(),
  scope: scope.optional(),
  audience: audience.optional(),
  expires_in: z.int().min(1).optional(),
  claims: ownClaims.optional(),
  refresh: z.boolean().optional(),
})

const IDEMPOTENCY_KEY = /^[\x21-\x7e]{1,255}$/

/** A customer's own tokens, about whom it likes. */
function issue(deps: Needs) {
  return async function issue(c: Ctx) {
    const caller = await apiKey(deps.credentials, presentedBy(c, new Map()))
    const request = await readJson(c, issueRequest)
    const grant = {
      ...grantOf(c, deps, caller, request.scope),
      subject: request.subject ?? caller.customerId,
      audience: request.audience ?? deps.config.issuer,
      ext: request.claims,
      accessTtl: lifetime(request.expires_in, deps.config),
    }
    assertFitsHeaders({ ...grant, sub: grant.subject, aud: grant.audience })
    const key = idempotencyKey(c)
    if (!request.refresh) return granted(c, await deps.issuer.issue(grant))
    if (key === undefined) return granted(c, await deps.issuer.start(grant))
    return granted(
      c,
      await deps.issuer.startOnce(grant, key, JSON.stringify([caller.id, grant.scope, request])),
    )
  }
}

function idempotencyKey(c: Ctx): string | undefined {
  const key = c.req.header('idempotency-key')
  if (key !== undefined && !IDEMPOTENCY_KEY.test(key))
    throw new OAuthError('invalid_request', 'Idempotency-Key: 1 to 255 visible ASCII characters')
  return key
}

function lifetime(asked: number | undefined, config: Config): number {
  if (asked === undefined) return config.accessTokenTtl
  if (asked > config.maxAccessTokenTtl)
    throw new OAuthError('invalid_request', `expires_in: from 1 to ${config.maxAccessTokenTtl} seconds`)
  return asked
}

function grantOf(c: Ctx, deps: Needs, caller: ApiKeyCaller, asked: string | undefined) {
  const scope = grantedScope(caller.scope, asked)
  if (scope === undefined)
    throw new OAuthError('invalid_scope', 'this API key may not give a scope that was asked for')
  return {
    ...originOf(c, deps, `api_key:${caller.id}`),
    customerId: caller.customerId,
    scope,
    apiKeyId: caller.id,
    type: 'token.issued' as const,
  }
}

/** RFC 6749 4.4 and 6. */
function token(deps: Needs) {
  return async function token(c: Ctx) {
    const form = await readForm(c)
    const grantType = form.get('grant_type')
    if (grantType === 'client_credentials') return clientCredentials(c, deps, form)
    if (grantType === 'refresh_token') return refresh(c, deps, form)
    throw grantType === undefined
      ? new OAuthError('invalid_request', 'grant_type is missing: client_credentials or refresh_token')
      : new OAuthError('unsupported_grant_type', 'grant_type: client_credentials or refresh_token')
  }
}

async function clientCredentials(c: Ctx, deps: Needs, form: Map<string, string>) {
  const { config, credentials, issuer } = deps
  const caller = await apiKey(credentials, presentedBy(c, form))
  const grant = grantOf(c, deps, caller, check(scope.optional(), form.get('scope')))
  const audience = config.issuer
  assertFitsHeaders({ ...grant, sub: caller.customerId, aud: audience, ext: undefined })
  const granting = {
    ...grant,
    subject: caller.customerId,
    audience,
    ext: undefined,
    accessTtl: config.accessTokenTtl,
  }
  return granted(c, await issuer.issue(granting))
}

const refreshRequest = z.strictObject({ refresh_token: z.string().min(1), scope: z.string().optional() })

/** The token is the credential; JSON or form. */
function refreshEndpoint(deps: Needs) {
  return async function refreshEndpoint(c: Ctx) {
    if (mediaType(c) !== 'application/json') return refresh(c, deps, await readForm(c))
    const { refresh_token, scope } = await readJson(c, refreshRequest)
    return refresh(c, deps, new Map(Object.entries(present({ refresh_token, scope })) as [string, string][]))
  }
}

async function refresh(c: Ctx, deps: Needs, form: Map<string, string>) {
  const text = form.get('refresh_token')
  if (text === undefined) throw new OAuthError('invalid_request', 'refresh_token is missing')
  const asked = check(scope.optional(), form.get('scope'))
  const customerId = await refreshingClient(c, deps, form)
  const { claims } = await deps.tokens.verifyRefresh(text)
  if (!claims || (customerId !== undefined && claims.client_id !== customerId))
    throw new OAuthError(
      'invalid_grant',
      "the refresh token is malformed, expired or not this client's; log in again",
    )
  const origin = originOf(c, deps, `session:${claims.sid}`)
  return granted(c, await deps.sessions.refresh(claims, asked, origin))
}

/** Client credentials are not needed, but if they come they must be right, and match. A bare client_id must match too. */
async function refreshingClient(
  c: Ctx,
  { credentials }: Needs,
  form: Map<string, string>,
): Promise<string | undefined> {
  const presented = presentedBy(c, form)
  if (presented === undefined) return form.get('client_id')
  return (await apiKey(credentials, presented)).customerId
}

/** RFC 6749 5.1. */
export function tokenResponse({ accessToken, claims, refreshToken }: Granted) {
  return present({
    access_token: accessToken,
    token_type: 'Bearer',
    expires_in: claims.exp - claims.iat,
    refresh_token: refreshToken,
    scope: claims.scope,
    session_id: claims.sid,
  })
}

const granted = (c: Ctx, grant: Granted) => json(c, tokenResponse(grant), 200, NO_STORE)
