import { Hono } from 'hono'
import type { AppContext, AppEnv } from '../http/env.ts'
import { isFresh } from '../http/fresh.ts'
import { noQuery } from '../http/params.ts'
import { bytes, respond } from '../http/respond.ts'
import { customerIssuer, parseIssuerName } from '../jwt/customer-issuer.ts'
import { JWKS_MAX_AGE_SECONDS, type Jwks, publicKeysOf } from '../keys/public-keys.ts'
import { ApiError } from '../lib/errors.ts'
import { endpoints } from './metadata.ts'

/** The metadata and keys for verifiers that check a customer's tokens themselves. They contain no secret. */
export const customerIssuers = new Hono<AppEnv>()
  .get('/:issuer/jwks.json', noQuery, async c => {
    const { jwks } = await keysOf(c, c.req.param('issuer'))
    return isFresh(c, jwks.etag)
      ? respond(c, null, 304, headersOf(jwks))
      : bytes(c, jwks.body, 200, { ...headersOf(jwks), 'Content-Type': 'application/jwk-set+json' })
  })
  // In OpenID Connect Discovery 4, and in some clients of RFC 8414, the well-known path comes after the issuer.
  .get('/:issuer/.well-known/openid-configuration', noQuery, c => customerMetadata(c, c.req.param('issuer')))
  .get('/:issuer/.well-known/oauth-authorization-server', noQuery, c =>
    customerMetadata(c, c.req.param('issuer')),
  )

const CACHED = `public, max-age=${JWKS_MAX_AGE_SECONDS}`

/** A verifier that kept the empty JWKS of a disabled customer would refuse its tokens after it is enabled. */
const headersOf = ({ etag, isEmpty }: Jwks) => ({
  ETag: etag,
  'Cache-Control': isEmpty ? 'no-cache' : CACHED,
})

/** RFC 8414, for the issuer of one customer. Throws `not_found`. */
export async function customerMetadata(c: AppContext, name: string): Promise<Response> {
  const { customerId } = await keysOf(c, name)
  const { config, keyRing } = c.get('services')
  const issuer = customerIssuer(config.issuer, keyRing.installationKey, customerId)
  const metadata = { issuer, jwks_uri: `${issuer}/jwks.json`, ...endpoints(config.issuer) }
  return bytes(c, JSON.stringify(metadata), 200, {
    'Content-Type': 'application/json',
    'Cache-Control': CACHED,
  })
}

async function keysOf(c: AppContext, name: string) {
  const services = c.get('services')
  const customerId = parseIssuerName(services.keyRing.installationKey, name)
  const jwks = customerId && (await publicKeysOf(services, customerId))
  if (!customerId || !jwks) throw NO_ISSUER
  return { customerId, jwks }
}

const NO_ISSUER = new ApiError(
  'not_found',
  'there is no such issuer; a customer has one while its signing_alg is EdDSA, ES256 or RS256, and for a day afterwards',
)
