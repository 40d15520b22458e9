import { createRemoteJWKSet, jwtVerify } from 'jose'
import { serveVerifier } from './serve-verifier.ts'

/** As docs/local-verification.md has it. */
await serveVerifier(async ({ issuer, audience }) => {
  const keys = createRemoteJWKSet(new URL(`${issuer}/jwks.json`))
  return token => jwtVerify(token, keys, { issuer, audience, typ: 'at+jwt' })
})
