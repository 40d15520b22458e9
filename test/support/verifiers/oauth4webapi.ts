import * as oauth from 'oauth4webapi'
import { serveVerifier } from './serve-verifier.ts'

/** The first argument is the algorithm by which the issuer is discovered: `oauth2` or `oidc`. */
const algorithm = process.argv[2] as 'oauth2' | 'oidc'
const options = { [oauth.allowInsecureRequests]: true }

await serveVerifier(async ({ issuer, audience }) => {
  const discovered = await oauth.discoveryRequest(new URL(issuer), { ...options, algorithm })
  const server = await oauth.processDiscoveryResponse(new URL(issuer), discovered)
  return token => {
    const request = new Request('http://orders.test', { headers: { Authorization: `Bearer ${token}` } })
    return oauth.validateJwtAccessToken(server, request, audience, options)
  }
})
