import { Hono } from 'hono'
import type { AppContext, AppEnv } from '../http/env.ts'
import { noQuery } from '../http/params.ts'
import { bytes } from '../http/respond.ts'
import { ApiError } from '../lib/errors.ts'

const METADATA_PATH = '/.well-known/oauth-authorization-server'

/** RFC 8414. openid-client asks at the second address and finds the same document. */
export const discovery = new Hono<AppEnv>()
  .get('/oauth-authorization-server', noQuery, c => metadataResponse(c))
  .get('/openid-configuration', noQuery, c => metadataResponse(c))
  // RFC 8414 3.1: clients put the well-known path before the path of the issuer.
  .get('/oauth-authorization-server/:path{.+}', noQuery, c => {
    if (c.req.path !== METADATA_PATH + new URL(issuerOf(c)).pathname) throw OTHER_ISSUER
    return metadataResponse(c)
  })

/** It may be cached, as nothing in it is a secret. */
const metadataResponse = (c: AppContext) =>
  bytes(c, JSON.stringify(metadata(issuerOf(c))), 200, { 'Content-Type': 'application/json' })

const issuerOf = (c: AppContext) => c.get('services').config.issuer

const OTHER_ISSUER = new ApiError(
  'not_found',
  `this server has another issuer; GET ${METADATA_PATH} says which one`,
)

const metadata = (issuer: string) => ({
  issuer,
  token_endpoint: `${issuer}/token`,
  introspection_endpoint: `${issuer}/introspect`,
  revocation_endpoint: `${issuer}/revoke`,
  service_documentation: `${issuer}/docs`,
  grant_types_supported: ['client_credentials', 'refresh_token'],
  response_types_supported: [],
  token_endpoint_auth_methods_supported: ['client_secret_basic', 'client_secret_post', 'none'],
  introspection_endpoint_auth_methods_supported: ['client_secret_basic', 'client_secret_post'],
  revocation_endpoint_auth_methods_supported: ['client_secret_basic', 'client_secret_post', 'none'],
})
