import { LRUCache } from 'lru-cache'
import { type AccessClaims, toAccessClaims } from '../jwt/claims.ts'
import { type CompactJws, macMatches, parseClaims, split } from '../jwt/jwt.ts'
import type { AsymmetricKey, HmacKey, SigningKey } from '../keys/customer-keys.ts'
import type { Proofs } from './signatures.ts'

/** Why a text is not an authentic token of a key's customer. */
export type AuthenticationFailure = 'signature_wrong' | 'claims_malformed' | 'wrong_customer' | 'wrong_issuer'

/** The signature is asymmetric and has not been verified. */
type Unproven = 'unproven'

/**
 * The claims of a token, if `key` made its MAC and they are canonical JSON. The caller must check the
 * members.
 */
export function macClaims(
  token: CompactJws,
  key: HmacKey,
): Record<string, unknown> | 'signature_wrong' | 'claims_malformed' {
  if (!macMatches(token, key.alg, key.secret)) return 'signature_wrong'
  return parseClaims(token.claims) ?? 'claims_malformed'
}

/** Like `macClaims`, for an asymmetric key. */
function provenClaims(text: string, token: CompactJws, key: AsymmetricKey, proofs: Proofs | undefined) {
  if (!key.pair.hasLength(token)) return 'signature_wrong'
  const isValid = proofs?.of(text, key)
  if (isValid === undefined) return 'unproven'
  return isValid ? (parseClaims(token.claims) ?? 'claims_malformed') : 'signature_wrong'
}

/**
 * The claims of an authentic access token. They are frozen because requests that present the same token share
 * them. `claims` is kept as text, because parsed JSON can take 28 times the memory of its text.
 */
export class AuthenticClaims implements AccessClaims {
  readonly iss: string
  readonly sub: string
  readonly aud: string | string[]
  readonly client_id: string
  readonly exp: number
  readonly iat: number
  readonly jti: string
  readonly ep: string
  readonly scope?: string
  readonly sid?: string
  readonly gen?: number
  /** `claims` as serialized by JSON.stringify. */
  readonly claimsJson?: string

  /** `customerId` and `issuer` equal the claims' own. All tokens of a key share these two strings. */
  constructor(claims: AccessClaims, customerId: string, issuer: string) {
    const { sub, aud, exp, iat, jti, ep, scope, sid, gen, claims: own } = claims
    this.iss = issuer
    this.sub = sub
    this.aud = typeof aud === 'string' ? aud : (Object.freeze(aud) as string[])
    this.client_id = customerId
    this.exp = exp
    this.iat = iat
    this.jti = jti
    this.ep = ep
    if (scope !== undefined) this.scope = scope
    if (sid !== undefined) this.sid = sid
    if (gen !== undefined) this.gen = gen
    if (own !== undefined) this.claimsJson = JSON.stringify(own)
    Object.freeze(this)
  }

  /** Parses `claimsJson` at each access. Use `claimsJson` directly to embed it in JSON. */
  get claims(): Record<string, unknown> | undefined {
    return this.claimsJson === undefined ? undefined : JSON.parse(this.claimsJson)
  }
}

/**
 * The cache entry of an authentic token: its claims, its header segment, and the identity of the key that
 * verified it.
 */
class AuthenticToken {
  readonly header: string
  /** The identity of the key. The key itself would keep a secret in memory after it was rotated or erased. */
  readonly keyIdentity: SigningKey['identity']
  readonly claims: AuthenticClaims
  readonly bytes: number

  constructor(text: string, key: SigningKey, claims: AuthenticClaims) {
    this.header = key.header
    this.keyIdentity = key.identity
    this.claims = claims
    this.bytes = maxBytes(text, claims)
  }
}

/**
 * The most tokens remembered as seen once, in at most 2 MiB. This is somewhat more than the cache can hold.
 */
const MAX_SEEN_ONCE = 65_536

/**
 * Authenticates access tokens. The result is a pure function of text and key, so it is cached by the whole
 * text. A cached token is not yet accepted: its expiry, revocations and the customer's state are checked at
 * every request.
 */
export class Authenticator {
  readonly #issuer: string
  readonly #cache: LRUCache<string, AuthenticToken>
  /**
   * 32 bits of each token's MAC. If two tokens share them, one is cached at its first use, which does no
   * harm.
   */
  readonly #seenOnce = new Set<number>()
  #hits = 0
  #misses = 0
  #rekeyed = 0

  /** `maxCacheBytes`: the most memory that cached tokens may use. */
  constructor({ issuer, maxCacheBytes }: { issuer: string; maxCacheBytes: number }) {
    this.#issuer = issuer
    this.#cache = new LRUCache({ maxSize: maxCacheBytes, sizeCalculation: ({ bytes }) => bytes })
  }

  /** The cache entry of the text, or else its segments. Undefined if it can't be a token. */
  read(text: string): AuthenticToken | CompactJws | undefined {
    return this.#cache.get(text) ?? split(text)
  }

  /**
   * `token` is the result of `read`; `key` is the key cache's current key for its header. `proofs`: the signatures that were
   * verified for this request.
   */
  authenticate(
    text: string,
    token: AuthenticToken | CompactJws,
    key: SigningKey,
    proofs?: Proofs,
  ): AuthenticClaims | AuthenticationFailure | Unproven {
    if (!(token instanceof AuthenticToken)) return this.#authenticateNew(text, token, key, proofs)
    if (token.keyIdentity === key.identity) {
      this.#hits++
      return token.claims
    }
    const claims = this.#claimsOf(text, split(text)!, key, proofs)
    if (claims === 'unproven') return claims
    this.#rekeyed++
    if (typeof claims !== 'string') this.#remember(text, claims, key)
    return claims
  }

  #authenticateNew(text: string, token: CompactJws, key: SigningKey, proofs: Proofs | undefined) {
    const claims = this.#claimsOf(text, token, key, proofs)
    if (claims === 'unproven') return claims
    this.#misses++
    // An asymmetric signature costs a hundred times what an entry does.
    if (typeof claims !== 'string' && (key.pair !== undefined || this.#wasSeen(text)))
      this.#remember(text, claims, key)
    return claims
  }

  #remember(text: string, claims: AuthenticClaims, key: SigningKey) {
    this.#cache.set(copy(text), new AuthenticToken(text, key, claims))
  }

  /**
   * Whether this authentic text was probably seen before. Tokens that are used only once are not worth
   * caching.
   */
  #wasSeen(text: string): boolean {
    let bits = 0
    for (let i = text.length - 12; i < text.length; i++) bits = Math.imul(bits, 31) + text.charCodeAt(i)
    bits |= 0
    if (this.#seenOnce.delete(bits)) return true
    if (this.#seenOnce.size >= MAX_SEEN_ONCE) this.#seenOnce.clear()
    this.#seenOnce.add(bits)
    return false
  }

  #claimsOf(
    text: string,
    token: CompactJws,
    key: SigningKey,
    proofs: Proofs | undefined,
  ): AuthenticClaims | AuthenticationFailure | Unproven {
    const signed = key.pair ? provenClaims(text, token, key, proofs) : macClaims(token, key)
    if (typeof signed === 'string') return signed
    const claims = toAccessClaims(signed)
    if (!claims) return 'claims_malformed'
    const { customerId } = key.record
    if (claims.client_id !== customerId) return 'wrong_customer'
    const issuer = key.pair ? key.issuer : this.#issuer
    return claims.iss === issuer ? new AuthenticClaims(claims, customerId, issuer) : 'wrong_issuer'
  }

  clear() {
    this.#cache.clear()
  }

  get stats() {
    const outcomes = new Map([
      ['hit', this.#hits],
      ['miss', this.#misses],
      ['rekeyed', this.#rekeyed],
    ])
    return { outcomes, tokens: this.#cache.size, bytes: this.#cache.calculatedSize }
  }
}

/**
 * Copies a string. The text may be a slice, which keeps the whole header or body that it was cut from in
 * memory. A Map in Node 26 copies a slice used as a key; a Map in Node 24 does not.
 */
const copy = (text: string) => Buffer.from(text, 'latin1').toString('latin1')

/**
 * The most memory that an entry takes. V8 stores ASCII in one byte per character and other text in two; each
 * list element is a separate string.
 */
function maxBytes(text: string, { sub, aud, scope = '', claimsJson = '' }: AuthenticClaims) {
  const audience =
    typeof aud === 'string' ? aud.length : aud.reduce((sum, { length }) => sum + length + 48, 0)
  return FIXED_BYTES + text.length + 2 * sub.length + audience + scope.length + 2 * claimsJson.length
}

/**
 * The size of the two objects, the short strings and a cache slot, measured by
 * test/token-cache-memory.test.ts.
 */
const FIXED_BYTES = 850
