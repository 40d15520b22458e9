import { createHmac, timingSafeEqual } from 'node:crypto'
import { type Algorithm, type HmacAlgorithm, isAsymmetric } from './algorithms.ts'

export type TokenType = 'at+jwt' | 'rt+jwt'

/**
 * A header has exactly these members, in this order, so `alg` none, `crit`, `jwk` and everything else that a
 * header may contain are impossible.
 */
export interface ProtectedHeader<Alg extends Algorithm = Algorithm> {
  alg: Alg
  typ: TokenType
  kid: string
}

/** The segments of a JWS Compact Serialization (RFC 7515 7.1), still encoded. */
export interface CompactJws {
  header: string
  claims: string
  signature: string
  signingInput: string
}

/**
 * `floor` is the minimum length of a secret in bytes. Our own keys are HS512 and 64 bytes; only imported keys
 * use the others.
 */
const HMACS = {
  HS256: { hash: 'sha256', floor: 32 },
  HS384: { hash: 'sha384', floor: 32 },
  HS512: { hash: 'sha512', floor: 64 },
} as const

const MAX_JWT_BYTES = 8192
const SEGMENTS = /^([\w-]+)\.([\w-]+)\.([\w-]+)$/
/**
 * The allowed last characters by length modulo 4: those whose unused bits are zero (RFC 4648 3.5). No
 * encoding has a remainder of 1.
 */
const LAST = [
  'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_',
  '',
  'AQgw',
  'AEIMQUYcgkosw048',
]
/**
 * In canonical JSON a quote after `{` or `,` opens a member's name, and nowhere else: inside a string it is
 * escaped.
 */
const INHERITED_NAME = /[{,]"(?:__proto__|constructor|prototype)":/
// A byte order mark is kept, so that JSON.parse refuses it.
const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/**
 * Signs a compact JWS with an HMAC. Throws if the secret is too short for the algorithm. Doesn't check the claims.
 */
export function sign(header: ProtectedHeader<HmacAlgorithm>, claims: object, secret: Uint8Array): string {
  return signUnder(encodeHeader(header), header.alg, claims, secret)
}

/** Like `sign`, with an encoded header. */
export function signUnder(header: string, alg: HmacAlgorithm, claims: object, secret: Uint8Array): string {
  const signingInput = `${header}.${encode(claims)}`
  return `${signingInput}.${mac(signingInput, alg, secret)}`
}

/** Encodes the header segment that all tokens of one type and key begin with. */
export function encodeHeader({ alg, typ, kid }: ProtectedHeader): string {
  return encode({ alg, typ, kid })
}

/**
 * Splits a token into three segments, each in canonical base64url; undefined for any other text. The length
 * is checked first, then one pass follows, so an unauthenticated caller costs at most a scan of 8 KiB.
 */
export function split(token: string): CompactJws | undefined {
  if (token.length > MAX_JWT_BYTES) return undefined
  const [, header, claims, signature] = SEGMENTS.exec(token) ?? []
  if (header === undefined || claims === undefined || signature === undefined) return undefined
  if (!isCanonical(header) || !isCanonical(claims) || !isCanonical(signature)) return undefined
  return { header, claims, signature, signingInput: token.slice(0, -signature.length - 1) }
}

/**
 * Parses a header segment that `sign` could have written, character for character; undefined for any other.
 */
export function parseHeader(segment: string): ProtectedHeader | undefined {
  const { alg, typ, kid } = parseClaims(segment) ?? {}
  if (!isAlgorithm(alg) || !isTokenType(typ) || typeof kid !== 'string') return undefined
  const header = { alg, typ, kid }
  return encodeHeader(header) === segment ? header : undefined
}

/**
 * Parses a JSON object that is spelled as JSON.stringify would, so without duplicate members, unnecessary
 * escapes, white space or numbers out of range; undefined for any other. Members with the name of a property
 * that every object inherits are refused at any depth.
 */
export function parseClaims(segment: string): Record<string, unknown> | undefined {
  // This bounds the depth too: JSON.parse accepts any depth, and code that reads its result might overflow.
  if (segment.length > MAX_JWT_BYTES) return undefined
  try {
    const text = utf8.decode(Buffer.from(segment, 'base64url'))
    const claims: unknown = JSON.parse(text)
    const strict = isObject(claims) && JSON.stringify(claims) === text && !INHERITED_NAME.test(text)
    return strict ? claims : undefined
  } catch {
    return undefined // Not UTF-8, or not JSON.
  }
}

/**
 * Compares in constant time, as text, so that only the canonical spelling of a signature matches. Throws if
 * the secret is too short: an empty key is always a bug in the lookup.
 */
export function macMatches(token: CompactJws, alg: HmacAlgorithm, secret: Uint8Array): boolean {
  const expected = Buffer.from(mac(token.signingInput, alg, secret))
  const signature = Buffer.from(token.signature)
  return signature.length === expected.length && timingSafeEqual(signature, expected)
}

function mac(signingInput: string, alg: HmacAlgorithm, secret: Uint8Array): string {
  const { hash, floor } = HMACS[alg]
  if (secret.length < floor) throw new Error(`a secret for ${alg} has at least ${floor} bytes`)
  return createHmac(hash, secret).update(signingInput).digest('base64url')
}

/** The canonical segment of a header. */
export function encode(value: object): string {
  return Buffer.from(JSON.stringify(value)).toString('base64url')
}

function isCanonical(segment: string): boolean {
  return LAST[segment.length % 4]!.includes(segment.slice(-1))
}

function isAlgorithm(alg: unknown): alg is Algorithm {
  return isAsymmetric(alg) || (typeof alg === 'string' && Object.hasOwn(HMACS, alg))
}

function isTokenType(typ: unknown): typ is TokenType {
  return typ === 'at+jwt' || typ === 'rt+jwt'
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
