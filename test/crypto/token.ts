import { createHmac } from 'node:crypto'
import { type HmacAlgorithm, isAsymmetric } from '../../server/jwt/algorithms.ts'
import {
  macMatches,
  type ProtectedHeader,
  parseClaims,
  parseHeader,
  sign,
  split,
} from '../../server/jwt/jwt.ts'
import { encode } from './mutate.ts'

/** A token, its parts and its key, and other tokens that the key could have signed. */
export const secret = Buffer.from(Array.from({ length: 64 }, (_, i) => (i * 37) % 256))
export const header: ProtectedHeader<HmacAlgorithm> = {
  alg: 'HS512',
  typ: 'at+jwt',
  kid: 'aaaaaaaaaaaaaaaa.a1.bbbbbbbbbbbbb',
}
export const claims = {
  iss: 'http://localhost:3001',
  sub: 'ü/~?>1',
  aud: 'api',
  exp: 1790000300,
  iat: 1790000000,
  n: [1.5],
}
export const headerText = JSON.stringify(header)
export const claimsText = JSON.stringify(claims)
export const token = sign(header, claims, secret)
export const parts = split(token)!

/** The cryptographic steps of `verify`, in its order. */
export function weAccept(text: string): boolean {
  const compact = split(text)
  const read = compact && parseHeader(compact.header)
  if (!compact || !read || isAsymmetric(read.alg) || !macMatches(compact, read.alg, secret)) return false
  return parseClaims(compact.claims) !== undefined
}

export function signer(signingInput: string): string {
  return createHmac('sha512', secret).update(signingInput).digest('base64url')
}

/** Signs segments with any content with the right key. */
export function resigned(headerSegment: string, claimsSegment: string): string {
  const signingInput = `${headerSegment}.${claimsSegment}`
  return `${signingInput}.${signer(signingInput)}`
}

export function signed(headerJson: string | Buffer, claimsJson: string | Buffer): string {
  return resigned(encode(headerJson), encode(claimsJson))
}
