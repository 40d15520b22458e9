import { Hono } from 'hono'
import { z } from 'zod'
import { requireApiKey } from '../http/auth.ts'
import { readJson } from '../http/body.ts'
import { type ApiKeyClient, type ApiKeyEnv, type AppContext, auditContext } from '../http/env.ts'
import { idempotencyKey, noQuery } from '../http/params.ts'
import { audience, issuedSubject, parseScope } from '../http/schemas.ts'
import { MAX_TOKEN_TTL_SECONDS } from '../jwt/claims.ts'
import { grantedScope } from '../jwt/scopes.ts'
import { ApiError } from '../lib/errors.ts'
import { assertFitsHeaders } from './identity-headers.ts'
import { tokenResponse } from './token-response.ts'

const MAX_CLAIMS_BYTES = 2048

const ownClaims = z
  .record(z.string(), z.unknown())
  .refine(
    claims => Buffer.byteLength(JSON.stringify(claims)) <= MAX_CLAIMS_BYTES,
    `at most ${MAX_CLAIMS_BYTES} bytes of JSON`,
  )

/**
 * Only the issuing statement knows the limit, because a policy may lower it, so that it also refuses what no limit allows. The
 * number is cut to what fits its column.
 */
const expiresIn = z
  .number()
  .refine(Number.isInteger, 'must be a whole number')
  .min(1)
  .transform(seconds => Math.min(seconds, MAX_TOKEN_TTL_SECONDS + 1))

const issueRequest = z.strictObject({
  subject: issuedSubject.optional(),
  scope: z.string().optional(),
  audience: audience.optional(),
  expires_in: expiresIn.optional(),
  claims: ownClaims.optional(),
  refresh: z.boolean().optional(),
})

/** A customer issues tokens for its own users. */
export const issue = new Hono<ApiKeyEnv>().post('/', requireApiKey, noQuery, async c => {
  const { config, issuer } = c.get('services')
  const client = c.get('client')
  const request = await readJson(c, issueRequest)
  const grant = {
    ...grantFor(c, client, parseScope(request.scope)),
    subject: request.subject ?? client.customerId,
    audience: request.audience ?? config.issuer,
    ext: request.claims,
    expiresIn: request.expires_in,
  }
  assertFitsHeaders({ ...grant, sub: grant.subject, aud: grant.audience })
  const retryKey = idempotencyKey(c)
  if (!request.refresh) return tokenResponse(c, await issuer.issue(grant))
  if (retryKey === undefined) return tokenResponse(c, await issuer.start(grant))
  const fingerprint = JSON.stringify([client.id, grant.scope, request])
  return tokenResponse(c, await issuer.startOnce(grant, retryKey, fingerprint))
})

/** Returns the part that all grants of an API key have in common. Throws `invalid_scope`. */
export function grantFor(c: AppContext, client: ApiKeyClient, requestedScope: string | undefined) {
  const scope = grantedScope(client.scope, requestedScope)
  if (scope === undefined)
    throw new ApiError('invalid_scope', 'this API key may not give a scope that was asked for')
  return {
    ...auditContext(c, `api_key:${client.id}`),
    customerId: client.customerId,
    scope,
    exact: requestedScope !== undefined,
    apiKeyId: client.id,
    type: 'token.issued' as const,
  }
}
