import type { Config } from '../config/load.ts'
import type { Routes } from '../http/call.ts'
import { json } from '../http/respond.ts'

/** RFC 8414. openid-client asks at the second address, and finds the same. */
export function discoveryRoutes({ config }: { config: Pick<Config, 'issuer'> }): Routes {
  const document = metadata(config.issuer)
  return {
    'GET /.well-known/oauth-authorization-server': () => json(document),
    'GET /.well-known/openid-configuration': () => json(document),
  }
}

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
