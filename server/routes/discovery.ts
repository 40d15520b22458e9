import { Hono } from 'hono'
import type { AppEnv } from '../http/env.ts'
import { noQuery } from '../http/params.ts'
import { json } from '../http/respond.ts'

/** RFC 8414. openid-client asks at the second address and finds the same document. */
export const discovery = new Hono<AppEnv>()
  .get('/oauth-authorization-server', noQuery, c => json(c, metadata(c.get('services').config.issuer)))
  .get('/openid-configuration', noQuery, c => json(c, metadata(c.get('services').config.issuer)))

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
