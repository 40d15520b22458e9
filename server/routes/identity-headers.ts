import type { AccessClaims } from '../jwt/claims.ts'
import { ApiError } from '../lib/errors.ts'
import type { AuthenticClaims } from '../tokens/authenticator.ts'

type IdentityClaims = Pick<
  AuthenticClaims,
  'client_id' | 'sub' | 'scope' | 'aud' | 'sid' | 'jti' | 'exp' | 'claimsJson'
>

/**
 * Returns a token's identity as headers for the backend behind a gateway. All of them are always set, to an
 * empty value if unknown: if one is missing, some proxies pass the client's own header through.
 */
export function identityHeaders(claims: IdentityClaims): Record<string, string> {
  return {
    'X-Auth-Customer': claims.client_id,
    'X-Auth-Subject': visible(claims.sub),
    'X-Auth-Scope': claims.scope ?? '',
    'X-Auth-Audience':
      typeof claims.aud === 'string' ? visible(claims.aud) : claims.aud.map(visible).join(' '),
    'X-Auth-Session': claims.sid ?? '',
    'X-Auth-Token-Id': claims.jti,
    'X-Auth-Expires': String(claims.exp),
    'X-Auth-Claims': claims.claimsJson ? Buffer.from(claims.claimsJson).toString('base64url') : '',
  }
}

/** Bytes. nginx's default buffer for an upstream's headers is 4 KiB, and other headers need space in it. */
const MAX_CLAIMS_BYTES = 3 * 1024

/** Refuses a token when it is issued rather than at every request later. Throws `invalid_request`. */
export function assertFitsHeaders({
  sub,
  aud,
  scope,
  claims,
}: Pick<AccessClaims, 'sub' | 'aud' | 'scope' | 'claims'>) {
  const fixed = { client_id: 'c'.repeat(16), sid: 's'.repeat(24), jti: 't'.repeat(24), exp: 9_999_999_999 }
  const claimsJson = claims === undefined ? {} : { claimsJson: JSON.stringify(claims) }
  const headers = identityHeaders({ sub, aud, scope: scope ?? '', ...fixed, ...claimsJson })
  const bytes = Object.entries(headers).reduce(
    (sum, [name, value]) => sum + name.length + value.length + 4,
    0,
  )
  if (bytes > MAX_CLAIMS_BYTES)
    throw new ApiError(
      'invalid_request',
      `subject, scope, audience and claims are more than ${MAX_CLAIMS_BYTES} bytes of headers; send less`,
    )
}

const VISIBLE = /^[\x21-\x24\x26-\x7e]*$/

/** Visible ASCII: every other character, and the percent sign itself, is percent-encoded as UTF-8. */
const visible = (text: string) =>
  VISIBLE.test(text) ? text : text.replace(/[^\x21-\x24\x26-\x7e]+/gu, part => encodeURIComponent(part))
