/**
 * The claims of our two kinds of token. Each member's type and form is checked, because a signature only
 * shows that someone with the secret wrote them.
 */

export interface AccessClaims {
  iss: string
  sub: string
  aud: string | string[]
  client_id: string
  exp: number
  iat: number
  jti: string
  /** "customer epoch.subject epoch" at the start of its session, or at issue if it has no session. */
  ep: string
  scope?: string
  /** The caller's own claims. */
  claims?: Record<string, unknown> | undefined
  sid?: string
  /** The session's generation at issue. */
  gen?: number
}

export interface RefreshClaims {
  aud: 'refresh'
  client_id: string
  sub: string
  sid: string
  gen: number
  iat: number
  exp: number
  jti: string
}

/** How far ahead another issuer's clock may have been (seconds). */
const CLOCK_SKEW_SECONDS = 60
/** The longest lifetime of an access token (seconds). */
export const MAX_TOKEN_TTL_SECONDS = 86_400

const EPOCHS = /^\d{1,15}\.\d{1,15}$/
/** An id made by randomId(15) in crypto/credentials.ts. */
const ID = /^[a-z2-7]{24}$/
/** RFC 6749 3.3. */
const SCOPE = /^[\x21\x23-\x5b\x5d-\x7e]+(?: [\x21\x23-\x5b\x5d-\x7e]+)*$/
/** The audiences that /issue accepts. A previous owner of an imported secret may have signed anything. */
const AUDIENCE = /^[\x21-\x7e]{1,255}$/
/** The next generation must still fit the database's integer, which ends at 2^31 - 1. */
const MAX_GENERATION = 2 ** 31 - 2

const ACCESS = new Set([
  'iss',
  'sub',
  'aud',
  'client_id',
  'exp',
  'iat',
  'jti',
  'ep',
  'scope',
  'claims',
  'sid',
  'gen',
])
const REFRESH = new Set(['aud', 'client_id', 'sub', 'sid', 'gen', 'iat', 'exp', 'jti'])

/**
 * The claims of an access token, or undefined if a member is unknown, missing or malformed. Reads no clock.
 */
export function toAccessClaims(claims: Record<string, unknown>): AccessClaims | undefined {
  const { iss, aud, ep, jti, scope, claims: own } = claims
  if (!hasOnly(ACCESS, claims) || typeof iss !== 'string' || !isId(jti) || !isAudience(aud)) return undefined
  if (typeof ep !== 'string' || !EPOCHS.test(ep)) return undefined
  if (scope !== undefined && (typeof scope !== 'string' || !SCOPE.test(scope))) return undefined
  if (own !== undefined && !isObject(own)) return undefined
  if (!isSession(claims) || !isCommon(claims)) return undefined
  return claims.exp - claims.iat > MAX_TOKEN_TTL_SECONDS ? undefined : (claims as unknown as AccessClaims)
}

/**
 * The claims of a refresh token, or undefined if a member is unknown, missing or malformed. Reads no clock.
 */
export function toRefreshClaims(claims: Record<string, unknown>): RefreshClaims | undefined {
  const { aud, jti, sid, gen } = claims
  if (!hasOnly(REFRESH, claims) || aud !== 'refresh' || sid === undefined || !isSession(claims))
    return undefined
  if (jti !== `${sid}.${gen}` || !isCommon(claims)) return undefined
  return claims as unknown as RefreshClaims
}

/** `now` is in milliseconds, by the database's clock. `exp` is exclusive (RFC 7519 4.1.4). */
export const isExpired = ({ exp }: { exp: number }, now: number) => now >= exp * 1000

/** Whether an access token's iat is further ahead of `now` (milliseconds) than another issuer's clock may be. */
export const isNotYetValid = ({ iat }: { iat: number }, now: number) =>
  iat * 1000 > now + CLOCK_SKEW_SECONDS * 1000

/** Checks the members that both kinds have, except `client_id`, which is compared with the key's customer. */
function isCommon<Claims extends Record<string, unknown>>(
  claims: Claims,
): claims is Claims & { sub: string; exp: number; iat: number } {
  const { sub, exp, iat } = claims
  return isSubject(sub) && isNumericDate(exp) && isNumericDate(iat) && iat <= exp
}

/** Rejects members that we never write, so that introspection never returns them. */
function hasOnly(members: Set<string>, claims: Record<string, unknown>): boolean {
  for (const name in claims) if (!members.has(name)) return false
  return true
}

/** sid and gen come together or not at all. */
function isSession({ sid, gen }: Record<string, unknown>): boolean {
  if (sid === undefined) return gen === undefined
  return isId(sid) && Number.isSafeInteger(gen) && (gen as number) > 0 && (gen as number) <= MAX_GENERATION
}

const isId = (value: unknown): value is string => typeof value === 'string' && ID.test(value)

// Control characters are not allowed in HTTP headers, and PostgreSQL can't store NUL.
const isSubject = (sub: unknown): sub is string =>
  typeof sub === 'string' && sub.length > 0 && sub.length <= 255 && !/\p{Cc}/u.test(sub) && sub.isWellFormed()

const isNumericDate = (value: unknown): value is number =>
  Number.isSafeInteger(value) && (value as number) > 0

const isAudience = (aud: unknown): aud is string | string[] =>
  isOneAudience(aud) || (Array.isArray(aud) && aud.length > 0 && aud.every(isOneAudience))

const isOneAudience = (aud: unknown) => typeof aud === 'string' && AUDIENCE.test(aud)

const isObject = (value: unknown) => typeof value === 'object' && value !== null && !Array.isArray(value)
