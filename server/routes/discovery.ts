import { Hono } from 'hono'
import type { AppContext, AppEnv } from '../http/env.ts'
import { isFresh } from '../http/fresh.ts'
import { noQuery } from '../http/params.ts'
import { bytes, respond } from '../http/respond.ts'
import { ApiError } from '../lib/errors.ts'
import { customerMetadata } from './customer-issuers.ts'
import { endpoints } from './metadata.ts'

const OAUTH = '/oauth-authorization-server'
const OPENID = '/openid-configuration'

/** RFC 8414. openid-client requests the second address, which returns the same document. */
export const discovery = new Hono<AppEnv>()
  .get(OAUTH, noQuery, c => metadataResponse(c))
  .get(OPENID, noQuery, c => metadataResponse(c))
  // RFC 8414 3.1: clients put the well-known path before the path of the issuer.
  .get(`${OAUTH}/:path{.+}`, noQuery, c => metadataOfPath(c, OAUTH))
  .get(`${OPENID}/:path{.+}`, noQuery, c => metadataOfPath(c, OPENID))
  .get('/jwks.json', noQuery, c => installationKeys(c))

/** The issuer's path, without a slash at its end. */
const pathOf = (issuer: string) => new URL(issuer).pathname.replace(/\/$/, '')

async function metadataOfPath(c: AppContext, document: string): Promise<Response> {
  const path = c.req.path.slice(`/.well-known${document}`.length)
  const own = pathOf(issuerOf(c))
  if (path === own) return metadataResponse(c)
  const [, name] = path.startsWith(own) ? (CUSTOMER.exec(path.slice(own.length)) ?? []) : []
  if (name === undefined) throw OTHER_ISSUER
  return customerMetadata(c, name)
}

const CUSTOMER = /^\/customers\/([^/]+)$/

/** The document may be cached, because it contains no secret. */
const metadataResponse = (c: AppContext) =>
  bytes(c, JSON.stringify(metadata(issuerOf(c))), 200, { 'Content-Type': 'application/json' })

const issuerOf = (c: AppContext) => c.get('services').config.issuer

const OTHER_ISSUER = new ApiError(
  'not_found',
  `this server has another issuer; GET /.well-known${OAUTH} says which one`,
)

const metadata = (issuer: string) => ({
  issuer,
  jwks_uri: `${issuer}/.well-known/jwks.json`,
  ...endpoints(issuer),
})

/** The key that signs answers of introspection (RFC 9701). No access token is signed with it. */
function installationKeys(c: AppContext): Response {
  const { body, etag } = c.get('services').introspectionSigner.jwks
  const headers = { ETag: etag, 'Cache-Control': 'public, max-age=3600' }
  return isFresh(c, etag)
    ? respond(c, null, 304, headers)
    : bytes(c, body, 200, { ...headers, 'Content-Type': 'application/jwk-set+json' })
}
