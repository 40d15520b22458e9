import { randomBytes } from 'node:crypto'
import { randomId } from '../server/crypto/credentials.ts'
import { accessProblem } from '../server/jwt/claims.ts'
import { encodeHeader, macMatches, parseClaims, signUnder, split } from '../server/jwt/jwt.ts'
import { RevocationList } from '../server/revocation/revocation-list.ts'
import { identityHeaders } from '../server/routes/identity-headers.ts'
import { ISSUER } from './seed.ts'
import { markdown, median } from './table.ts'

/** Where the microseconds of a verify go: its parts, each by itself, in this process. */

const TIMES = 20_000
const ROUNDS = 9

export function anatomy(): string {
  const secret = randomBytes(64)
  const customerId = randomId(10)
  const header = encodeHeader({ alg: 'HS512', typ: 'at+jwt', kid: `${customerId}.a1.abcdefghijklm` })
  const iat = Math.floor(Date.now() / 1000)
  const claims = {
    ...{ iss: ISSUER, sub: 'user-1', aud: ISSUER, client_id: customerId, exp: iat + 3_600, iat },
    ...{ jti: randomId(15), ep: '0.0', scope: 'read write', sid: randomId(15), gen: 1 },
  }
  const text = signUnder(header, 'HS512', claims, secret)
  const token = split(text)!
  const known = new Map([[header, secret]])
  const expected = { customerId, issuer: ISSUER, now: Date.now() }
  const revocations = new RevocationList()
  revocations.add([1, 'token', customerId, randomId(15), 0, iat + 3_600])
  revocations.add([2, 'session', customerId, randomId(15), 0, iat + 3_600])
  const parts: [string, () => unknown][] = [
    ['the string: three segments, canonical', () => split(text)],
    ['the same, and the header looked up', () => known.get(split(text)!.header)],
    ['the MAC (HMAC-SHA512, constant time)', () => macMatches(token, 'HS512', secret)],
    ['the claims: decoded, canonical JSON', () => parseClaims(token.claims)],
    ['the claims: types, times, issuer, customer', () => accessProblem(claims, expected)],
    ['revocations: token, session, subject', () => revocations.refuse(claims)],
    ['the headers of the answer', () => identityHeaders(claims)],
  ]
  const times = parts.map(([, run]) => microseconds(run))
  const lines = parts.map(([what], i) => [what, times[i]!.toFixed(2)])
  return markdown(['part of a verify', 'µs'], lines)
}

/** Of one call: the median of some rounds. */
function microseconds(run: () => unknown): number {
  const round = () => {
    const began = performance.now()
    for (let i = 0; i < TIMES; i++) run()
    return ((performance.now() - began) / TIMES) * 1_000
  }
  return median(Array.from({ length: ROUNDS }, round))
}
