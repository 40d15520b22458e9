import { Hono } from 'hono'
import { z } from 'zod'
import type { AuthenticatedClient } from '../clients/authenticate.ts'
import { servedCustomer } from '../clients/served-customer.ts'
import { requireClient } from '../http/auth.ts'
import { readJson } from '../http/body.ts'
import { type AppContext, auditContext, type ClientEnv, credentialName } from '../http/env.ts'
import { idempotencyKey, noQuery } from '../http/params.ts'
import { audience, issuedSubject, parseScope } from '../http/schemas.ts'
import { MAX_TOKEN_TTL_SECONDS } from '../jwt/claims.ts'
import { ANY, grantedScope } from '../jwt/scopes.ts'
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
 * Only the issuing statement knows the limit, because a policy may lower it. So that statement also refuses numbers that no limit
 * allows. A number that is too large for its column is reduced to the column's maximum.
 */
const expiresIn = z
  .number()
  .refine(Number.isInteger, 'must be a whole number')
  .min(1)
  .transform(seconds => Math.min(seconds, MAX_TOKEN_TTL_SECONDS + 1))

const issueRequest = z.strictObject({
  customer: z.string().optional(),
  subject: issuedSubject.optional(),
  scope: z.string().optional(),
  audience: audience.optional(),
  expires_in: expiresIn.optional(),
  claims: ownClaims.optional(),
  refresh: z.boolean().optional(),
})

/** A customer, or a service for it, issues tokens for the customer's users. */
export const issue = new Hono<ClientEnv>().post('/', requireClient, noQuery, async c => {
  const { config, issuer } = c.get('services')
  const client = c.get('client')
  const request = await readJson(c, issueRequest)
  const customerId = await servedCustomer(c.get('services'), client, request.customer)
  const grant = {
    ...grantFor(c, client, customerId, parseScope(request.scope)),
    subject: request.subject ?? customerId,
    audience: request.audience ?? config.issuer,
    claims: request.claims,
    expiresIn: request.expires_in,
  }
  assertFitsHeaders({ ...grant, sub: grant.subject, aud: grant.audience })
  const retryKey = idempotencyKey(c)
  if (!request.refresh) return tokenResponse(c, await issuer.issue(grant))
  if (retryKey === undefined) return tokenResponse(c, await issuer.start(grant))
  const fingerprint = JSON.stringify([client.id, grant.scope, request])
  return tokenResponse(c, await issuer.startOnce(grant, retryKey, fingerprint))
})

/** Returns the part that all grants of a client have in common. Throws `invalid_scope`. */
export function grantFor(
  c: AppContext,
  client: AuthenticatedClient,
  customerId: string,
  requestedScope: string | undefined,
) {
  const scope = grantedScope(grantable(client), requestedScope)
  if (scope === undefined)
    throw new ApiError(
      'invalid_scope',
      'this credential may not grant one of the requested scopes; request fewer scopes',
    )
  return {
    ...auditContext(c, credentialName(client)),
    customerId,
    scope,
    exact: requestedScope !== undefined,
    apiKeyId: client.kind === 'api_key' ? client.id : undefined,
    type: 'token.issued' as const,
  }
}

/** The scopes that the client may grant. A service without a limit may grant any, like an API key with `*`. */
const grantable = (client: AuthenticatedClient) =>
  client.kind === 'api_key' ? client.scope : (client.scopes?.join(' ') ?? ANY)
