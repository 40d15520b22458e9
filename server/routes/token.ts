import { Hono } from 'hono'
import { servedCustomer } from '../clients/served-customer.ts'
import { REPEATABLE, requestedAudience } from '../http/audience.ts'
import { authenticateClient } from '../http/auth.ts'
import { readForm } from '../http/body.ts'
import { clientCredential } from '../http/credentials.ts'
import type { AppContext, AppEnv } from '../http/env.ts'
import { noQuery } from '../http/params.ts'
import { parseScope } from '../http/schemas.ts'
import { ApiError } from '../lib/errors.ts'
import { assertFitsHeaders } from './identity-headers.ts'
import { grantFor } from './issue.ts'
import { refreshGrant } from './refresh.ts'
import { tokenResponse } from './token-response.ts'

/** RFC 6749 4.4 and 6. */
export const token = new Hono<AppEnv>().post('/', noQuery, async c => {
  const form = await readForm(c, REPEATABLE)
  const grantType = form.get('grant_type')
  if (grantType === 'client_credentials') return clientCredentialsGrant(c, form)
  if (grantType === 'refresh_token') return refreshGrant(c, form, 'POST /token refresh_token')
  throw grantType === undefined
    ? new ApiError('invalid_request', 'grant_type is missing; send client_credentials or refresh_token')
    : new ApiError('unsupported_grant_type', 'grant_type: must be client_credentials or refresh_token')
})

async function clientCredentialsGrant(c: AppContext, form: Map<string, string>) {
  const services = c.get('services')
  const credential = clientCredential(c.req.header('authorization'), form)
  const client = await authenticateClient(services, credential, 'POST /token client_credentials')
  const subject = await servedCustomer(services, client, form.get('customer'))
  const audience = requestedAudience(form) ?? services.config.issuer
  const grant = grantFor(c, client, subject, parseScope(form.get('scope')))
  assertFitsHeaders({ sub: subject, aud: audience, scope: grant.scope })
  const request = { ...grant, subject, audience, claims: undefined, expiresIn: undefined }
  return tokenResponse(c, await services.issuer.issue(request))
}
