import type { AppContext } from '../http/env.ts'
import { present } from '../http/params.ts'
import { json } from '../http/respond.ts'
import type { TokenSet } from '../tokens/issuer.ts'

/** RFC 6749 5.1. */
export function serializeTokens({ accessToken, claims, refreshToken }: TokenSet) {
  return present({
    access_token: accessToken,
    token_type: 'Bearer',
    expires_in: claims.exp - claims.iat,
    refresh_token: refreshToken,
    scope: claims.scope,
    session_id: claims.sid,
  })
}

/** For caches of HTTP/1.0 (RFC 6749 5.1). */
export const NO_CACHE = { Pragma: 'no-cache' }

export const tokenResponse = (c: AppContext, tokens: TokenSet) =>
  json(c, serializeTokens(tokens), 200, NO_CACHE)
