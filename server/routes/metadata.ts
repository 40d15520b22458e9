/** The members of RFC 8414 that all issuers of this server have in common. `issuer` is the server's own. */
export const endpoints = (issuer: string) => ({
  token_endpoint: `${issuer}/token`,
  introspection_endpoint: `${issuer}/introspect`,
  revocation_endpoint: `${issuer}/revoke`,
  service_documentation: `${issuer}/docs`,
  grant_types_supported: ['client_credentials', 'refresh_token'],
  response_types_supported: [],
  token_endpoint_auth_methods_supported: ['client_secret_basic', 'client_secret_post', 'none'],
  introspection_endpoint_auth_methods_supported: ['client_secret_basic', 'client_secret_post'],
  introspection_signing_alg_values_supported: ['EdDSA'],
  revocation_endpoint_auth_methods_supported: ['client_secret_basic', 'client_secret_post', 'none'],
})
