/**
 * The claims of our two tokens, and what must hold of them before anything else is asked. Types are checked one by one
 * because a signature only says that somebody with the secret wrote them.
 */

export interface AccessClaims {
  iss: string
  sub: string
  aud: string | string[]
  client_id: string
  exp: number
  iat: number
  jti: string
  /** "customer epoch.subject epoch" as they were when its session, or it, began. */
  ep: string
  scope?: string
  /** The caller's own claims. */
  ext?: Record<string, unknown>
  sid?: string
  /** The session's generation that it was issued in. */
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

export type ClaimsProblem =
  | 'claims_malformed'
  | 'not_yet_valid'
  | 'expired'
  | 'wrong_customer'
  | 'wrong_issuer'

/** Seconds that a clock elsewhere may have been ahead when it issued. */
const CLOCK_SKEW_SECONDS = 60
/** No token of ours lives longer (seconds). */
const MAX_TOKEN_TTL_SECONDS = 86_400

const EPOCHS = /^\d{1,15}\.\d{1,15}$/
/** crypto/secret.ts makes them. */
const ID = /^[a-z2-7]{24}$/
/** RFC 6749 3.3. */
const SCOPE = /^[\x21\x23-\x5b\x5d-\x7e]+(?: [\x21\x23-\x5b\x5d-\x7e]+)*$/
/** What the door of /issue lets through; an imported secret's former owner may have signed anything. */
const AUDIENCE = /^[\x21-\x7e]{1,255}$/
/** The next one is to be had too, and the database's integer ends at 2^31 - 1. */
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
  'ext',
  'sid',
  'gen',
])
const REFRESH = new Set(['aud', 'client_id', 'sub', 'sid', 'gen', 'iat', 'exp', 'jti'])

/** `now` in milliseconds, by the database's clock. */
export function accessProblem(
  claims: Record<string, unknown>,
  expected: { customerId: string; issuer: string; now: number },
): ClaimsProblem | undefined {
  const { iss, aud, ep, jti, scope, ext } = claims
  if (!hasOnly(ACCESS, claims) || !isId(jti) || !isAudience(aud)) return 'claims_malformed'
  if (typeof ep !== 'string' || !EPOCHS.test(ep)) return 'claims_malformed'
  if (scope !== undefined && (typeof scope !== 'string' || !SCOPE.test(scope))) return 'claims_malformed'
  if (ext !== undefined && !isObject(ext)) return 'claims_malformed'
  if (!isSession(claims)) return 'claims_malformed'
  const problem = commonProblem(claims, expected, {
    longest: MAX_TOKEN_TTL_SECONDS,
    ahead: CLOCK_SKEW_SECONDS,
  })
  return problem ?? (iss === expected.issuer ? undefined : 'wrong_issuer')
}

export function refreshProblem(
  claims: Record<string, unknown>,
  expected: { customerId: string; now: number },
): ClaimsProblem | undefined {
  const { aud, jti, sid, gen } = claims
  if (!hasOnly(REFRESH, claims) || aud !== 'refresh' || sid === undefined || !isSession(claims))
    return 'claims_malformed'
  if (jti !== `${sid}.${gen}`) return 'claims_malformed'
  // Its session's row says the rest. A database clock that was set back must not end sessions.
  return commonProblem(claims, expected, {
    longest: Number.POSITIVE_INFINITY,
    ahead: Number.POSITIVE_INFINITY,
  })
}

function commonProblem(
  { sub, client_id, exp, iat }: Record<string, unknown>,
  expected: { customerId: string; now: number },
  bounds: { longest: number; ahead: number },
): ClaimsProblem | undefined {
  if (!isSubject(sub) || !isNumericDate(exp) || !isNumericDate(iat)) return 'claims_malformed'
  if (iat > exp || exp - iat > bounds.longest) return 'claims_malformed'
  // exp is exclusive (RFC 7519 4.1.4): a token is dead *at* exp.
  if (expected.now >= exp * 1000) return 'expired'
  if (iat * 1000 > expected.now + bounds.ahead * 1000) return 'not_yet_valid'
  return client_id === expected.customerId ? undefined : 'wrong_customer'
}

/** A member that we never write is not handed on to whoever introspects. */
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

// One regexp pass: a control character would be no header's, and NUL no database's.
const isSubject = (sub: unknown): sub is string =>
  typeof sub === 'string' && sub.length > 0 && sub.length <= 255 && !/\p{Cc}/u.test(sub) && sub.isWellFormed()

const isNumericDate = (value: unknown): value is number =>
  Number.isSafeInteger(value) && (value as number) > 0

const isAudience = (aud: unknown): aud is string | string[] =>
  isOneAudience(aud) || (Array.isArray(aud) && aud.length > 0 && aud.every(isOneAudience))

const isOneAudience = (aud: unknown) => typeof aud === 'string' && AUDIENCE.test(aud)

const isObject = (value: unknown) => typeof value === 'object' && value !== null && !Array.isArray(value)
