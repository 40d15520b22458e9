import { createRemoteJWKSet, jwtVerify } from 'jose'
import * as openid from 'openid-client'
import { serveVerifier } from './serve-verifier.ts'

/** openid-client discovers the issuer. It does not verify access tokens, so its users add jose. */
await serveVerifier(async ({ issuer, audience }) => {
  const options = { execute: [openid.allowInsecureRequests] }
  const config = await openid.discovery(new URL(issuer), 'orders', undefined, openid.None(), options)
  const server = config.serverMetadata()
  const keys = createRemoteJWKSet(new URL(server.jwks_uri!))
  return token => jwtVerify(token, keys, { issuer: server.issuer, audience, typ: 'at+jwt' })
})
