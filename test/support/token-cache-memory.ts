import { randomBytes } from 'node:crypto'
import { randomId } from '../../server/crypto/credentials.ts'
import type { AccessClaims } from '../../server/jwt/claims.ts'
import { encodeHeader, signUnder } from '../../server/jwt/jwt.ts'
import type { HmacKey } from '../../server/keys/customer-keys.ts'
import { Authenticator } from '../../server/tokens/authenticator.ts'
import { heapInUse } from './memory.ts'

/** Fills a token cache with tokens of one kind after another, and prints the heap that each takes. Runs in its own process. */

const ISSUER = 'http://assay.test'
const MAX_CACHE_BYTES = 8 * 2 ** 20

type Claims = Partial<AccessClaims>

/** The claims that make a token of nearly 8 KiB. */
const filled = (members: (length: number) => Claims): Claims => {
  let length = 5_600
  while (Buffer.byteLength(JSON.stringify(members(length))) > 5_600) length -= 20
  return members(length)
}

/** Kinds of tokens; in each, something other than the text uses additional memory. */
const KINDS: Record<string, () => Claims> = {
  'as small as can be': () => ({}),
  'a subject of two bytes a character': () => ({ sub: '名'.repeat(255) }),
  'many audiences': () =>
    filled(length => ({
      aud: Array.from({ length: length / 14 }, () => randomBytes(6).toString('hex').slice(1)),
    })),
  'a long scope': () => filled(length => ({ scope: 's'.repeat(length) })),
  'claims of brackets': () =>
    filled(length => ({ claims: { a: JSON.parse('['.repeat(length / 2) + ']'.repeat(length / 2)) } })),
  'claims of two bytes a character': () => filled(length => ({ claims: { a: `名${'a'.repeat(length)}` } })),
}

export interface Measured {
  kind: string
  tokens: number
  bytes: number
  maxBytes: number
  heapBytes: number
}

let serial = 0

/** A fresh key record, as after a reload: nothing is shared with other tokens. */
function newKey(): HmacKey {
  const customerId = randomId(10)
  const kid = [customerId, `a1.${randomId(10).slice(0, 13)}`].join('.')
  const header = encodeHeader({ alg: 'HS512', typ: 'at+jwt', kid })
  const record = {
    customerId,
    state: 'active',
    epoch: 0,
    keys: [],
    apiKeys: [],
    tokensPerMinute: undefined,
    gone: undefined,
  } as const
  serial++
  return {
    kid,
    use: 'access',
    version: 1,
    alg: 'HS512',
    header,
    secret: randomBytes(64),
    identity: serial,
    record,
  }
}

function add(authenticator: Authenticator, more: Claims) {
  const key = newKey()
  const ids = { jti: randomId(15), sid: randomId(15), client_id: key.record.customerId }
  const iat = 2_200_000_000 // Too large for a V8 small integer.
  const times = { exp: iat + 3_600, iat, ep: '123456789012345.123456789012345', gen: 1_000 }
  const claims = { iss: ISSUER, sub: 'a', aud: 'a', ...ids, ...times, ...more }
  const sent = `${signUnder(key.header, 'HS512', claims, key.secret)}${' '.repeat(4_096)}`
  // A slice of a Cookie header or a body. If cached as it is, it would retain the whole string.
  const text = sent.trimEnd()
  // A token is cached when it is presented the second time.
  for (let times = 0; times < 2; times++) {
    const result = authenticator.authenticate(text, authenticator.read(text)!, key)
    if (typeof result === 'string') throw new Error(result)
  }
}

/** Adds tokens until an old one is evicted. */
function fill(authenticator: Authenticator, more: () => Claims) {
  for (let tokens = -1; tokens < authenticator.stats.tokens; ) {
    tokens = authenticator.stats.tokens
    add(authenticator, more())
  }
}

function measure([kind, more]: [string, () => Claims]): Measured {
  const authenticator = new Authenticator({ issuer: ISSUER, maxCacheBytes: MAX_CACHE_BYTES })
  for (let i = 0; i < 50; i++) add(authenticator, more()) // Warm-up: compiles code and makes one-time allocations.
  authenticator.clear()
  const before = heapInUse()
  fill(authenticator, more)
  const { tokens, bytes } = authenticator.stats
  return { kind, tokens, bytes, maxBytes: MAX_CACHE_BYTES, heapBytes: heapInUse() - before }
}

process.stdout.write(JSON.stringify(Object.entries(KINDS).map(measure)))
