import { createRemoteJWKSet, jwtVerify } from 'jose'
import { serveVerifier } from './serve-verifier.ts'

/** As documented in docs/local-verification.md. */
await serveVerifier(async ({ issuer, audience }) => {
  const keys = createRemoteJWKSet(new URL(`${issuer}/jwks.json`))
  return token => jwtVerify(token, keys, { issuer, audience, typ: 'at+jwt' })
})
