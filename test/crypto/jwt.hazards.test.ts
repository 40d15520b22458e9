import { expect, test } from 'vitest'
import { ASYMMETRIC, type HmacAlgorithm, isAsymmetric } from '../../server/jwt/algorithms.ts'
import { macMatches, parseClaims, parseHeader, sign, split } from '../../server/jwt/jwt.ts'
import { BASE64URL, casings, degenerates, encode } from './mutate.ts'
import {
  claims,
  claimsText,
  header,
  headerText,
  parts,
  resigned,
  secret,
  signed,
  token,
  weAccept,
} from './token.ts'

test('H01 alg none in every casing is refused: without a signature, with junk, with a valid HMAC', () => {
  for (const none of casings('none'))
    for (const name of ['alg', 'Alg', 'aLG', 'ALG']) {
      const text = `{"${name}":"${none}","typ":"at+jwt","kid":"${header.kid}"}`
      expect(weAccept(`${encode(text)}.${parts.claims}.`)).toBe(false)
      expect(weAccept(`${encode(text)}.${parts.claims}.${parts.signature}`)).toBe(false)
      expect(weAccept(signed(text, claimsText))).toBe(false)
    }
})

test('H02 only the six algorithms are known, and no inherited property name', () => {
  const families = ['RS', 'PS', 'ES'].flatMap(family => [256, 384, 512].map(size => family + size))
  const rsa = families.filter(alg => !isAsymmetric(alg))
  const others = 'ES256K Ed25519 dir A128KW A256GCMKW PBES2-HS256+A128KW RSA-OAEP none'.split(' ')
  const inherited = ['toString', 'constructor', '__proto__', 'hasOwnProperty']
  for (const alg of [...rsa, ...others, ...inherited, '', 'hs512', 'HS512 ', 'HS1'])
    expect(parseHeader(encode(JSON.stringify({ ...header, alg })))).toBeUndefined()
  for (const alg of ASYMMETRIC)
    expect(weAccept(signed(JSON.stringify({ ...header, alg }), claimsText))).toBe(false)
})

test('H02 the right secret with another HS algorithm does not match', () => {
  for (const alg of ['HS256', 'HS384'] as const) {
    expect(macMatches(parts, alg, secret)).toBe(false)
    expect(weAccept(signed(JSON.stringify({ ...header, alg }), claimsText))).toBe(false)
  }
})

test('H03 a JSON serialization is refused', () => {
  const flattened = { protected: parts.header, payload: parts.claims, signature: parts.signature }
  expect(split(JSON.stringify(flattened))).toBeUndefined()
  expect(split(JSON.stringify({ ...flattened, header: { alg: 'HS512' } }))).toBeUndefined()
})

test.each([
  ['HS256', 32],
  ['HS384', 32],
  ['HS512', 64],
] as const)('H04 %s neither signs nor verifies with a secret under %i bytes', (alg, floor) => {
  const named = { ...header, alg }
  for (let length = 0; length < floor; length++) {
    const short = new Uint8Array(length)
    expect(() => sign(named, claims, short)).toThrow(`at least ${floor} bytes`)
    expect(() => macMatches(parts, alg, short)).toThrow(`at least ${floor} bytes`)
  }
  expect(
    macMatches(split(sign(named, claims, secret.subarray(0, floor)))!, alg, secret.subarray(0, floor)),
  ).toBe(true)
})

test('H04 a missing secret is an error, never an empty key', () => {
  for (const nothing of [undefined, null, {}, 64, Number.NaN]) {
    expect(() => macMatches(parts, 'HS512', nothing as unknown as Uint8Array)).toThrow()
    expect(() => sign(header, claims, nothing as unknown as Uint8Array)).toThrow()
  }
  expect(() => macMatches(parts, 'none' as HmacAlgorithm, secret)).toThrow()
})

test('H06 H07 a header with any additional member is refused, even if the right key signed it', () => {
  const instructions = { crit: ['b64'], b64: false, zip: 'DEF', cty: 'JWT' }
  const members = { jwk: {}, jku: 'http://x', x5u: 'http://x', x5c: [], ...instructions }
  for (const [name, value] of Object.entries(members)) {
    expect(weAccept(signed(JSON.stringify({ ...header, [name]: value }), claimsText))).toBe(false)
    expect(weAccept(signed(JSON.stringify({ [name]: value, ...header }), claimsText))).toBe(false)
  }
})

test('H08 a degenerate signature never matches', () => {
  for (const signature of degenerates(parts.signature)) {
    expect(weAccept(`${parts.signingInput}.${signature}`)).toBe(false)
    expect(macMatches({ ...parts, signature }, 'HS512', secret)).toBe(false)
  }
  for (let length = 0; length < parts.signature.length; length++)
    expect(weAccept(`${parts.signingInput}.${parts.signature.slice(0, length)}`)).toBe(false)
})

test('H08 a signature that only looks right in Latin-1 never matches', () => {
  const signature = [...parts.signature].map(c => String.fromCharCode(c.charCodeAt(0) + 256)).join('')
  expect(macMatches({ ...parts, signature }, 'HS512', secret)).toBe(false)
})

test.each([0, 1, 2])(
  'H09 of the 64 last characters of segment %i one is accepted, whether signed again or not',
  index => {
    const segments = token.split('.')
    const variants = [...BASE64URL].map(last => segments.with(index, segments[index]!.slice(0, -1) + last))
    expect(variants.map(v => v.join('.')).filter(weAccept)).toEqual([token])
    if (index < 2) expect(variants.map(v => resigned(v[0]!, v[1]!)).filter(weAccept)).toEqual([token])
  },
)

test('H09 each segment length has its canonical last characters: 64, none, 4 and 16 of them', () => {
  for (const [length, canonical] of [
    [4, 64],
    [5, 0],
    [6, 4],
    [7, 16],
  ] as const)
    for (const place of [0, 1, 2]) {
      const spellings = [...BASE64URL].map(last =>
        ['AAAA', 'AAAA', 'AAAA'].with(place, 'A'.repeat(length - 1) + last),
      )
      const kept = spellings.filter(s => split(s.join('.')) !== undefined)
      expect(kept.length).toBe(canonical)
      for (const s of kept) expect(Buffer.from(s[place]!, 'base64url').toString('base64url')).toBe(s[place])
    }
})

test('H09 white space, padding and the other alphabet are refused at any position', () => {
  const foreign = [...'=+/~,é \t\n\0Ł名', '==', '\r\n', '\u00a0', '\u200b', '\ufeff', '\ud800']
  for (let at = 0; at <= token.length; at++)
    for (const odd of foreign) expect(split(token.slice(0, at) + odd + token.slice(at))).toBeUndefined()
})

test('H10 claims that are not an object are refused, even if the right key signed them', () => {
  for (const text of ['[]', '[{}]', 'null', '"x"', '1', 'true', '', ' ', '{', '{}{}', `${claimsText},`]) {
    expect(parseClaims(encode(text))).toBeUndefined()
    expect(weAccept(signed(headerText, text))).toBe(false)
  }
  expect(parseClaims(encode('{}'))).toEqual({})
})

test('H11 a number that is not in JSON’s canonical spelling is refused', () => {
  const odd = '1e999 -1e999 1.0 1e3 1E3 -0 0.10 10000000000000000000001 01 +1 .5 NaN'
  for (const number of odd.split(' ')) expect(weAccept(signed(headerText, `{"exp":${number}}`))).toBe(false)
  for (const number of ['1e+308', '0', '-1', '1.5', '9007199254740991'])
    expect(weAccept(signed(headerText, `{"exp":${number}}`))).toBe(true)
})

test('H12 a duplicate member in header or claims is refused, also when escaped', () => {
  for (const name of ['alg', 'typ', 'kid']) {
    const value = JSON.stringify(header[name as 'alg'])
    for (const again of [name, `\\u00${name.charCodeAt(0).toString(16)}${name.slice(1)}`]) {
      expect(weAccept(signed(headerText.replace('{', `{"${again}":${value},`), claimsText))).toBe(false)
      expect(weAccept(signed(headerText.replace('}', `,"${again}":${value}}`), claimsText))).toBe(false)
    }
  }
  for (const twice of [
    '{"sub":"a","sub":"a"}',
    '{"sub":"a","\\u0073ub":"b"}',
    '{"claims":{"client_id":1,"client_id":1}}',
  ])
    expect(weAccept(signed(headerText, twice))).toBe(false)
})

test.each(['__proto__', 'constructor', 'prototype'])(
  'H13 a member named %s is refused at any depth, but allowed as text',
  name => {
    for (const text of [`{"${name}":1}`, `{"a":1,"${name}":{}}`, `{"a":{"b":[{"${name}":{"x":1}}]}}`])
      expect(weAccept(signed(headerText, text))).toBe(false)
    for (const text of [
      `{"a":"${name}"}`,
      `{"a":["${name}"]}`,
      `{"a":"{\\"${name}\\":1}"}`,
      `{"x${name}":1}`,
      `{"x\\"${name}":1}`,
    ])
      expect(weAccept(signed(headerText, text))).toBe(true)
    expect(({} as Record<string, unknown>).x).toBeUndefined()
  },
)

test('H14 a million dots are refused without parsing', () => {
  const dots = '.'.repeat(1e6)
  const before = process.memoryUsage().heapUsed
  let refused = 0
  for (let i = 0; i < 100_000; i++) if (split(dots) === undefined) refused++
  expect(refused).toBe(100_000)
  expect(process.memoryUsage().heapUsed - before).toBeLessThan(20e6)
})

test('H14 8 KiB is read, and one character more is not', () => {
  expect(split(`AAAA.AAAA.${'A'.repeat(8182)}`)?.signature.length).toBe(8182)
  expect(split(`AAAA.AAAA.${'A'.repeat(8183)}`)).toBeUndefined()
})

test('H14 a hundred thousand levels of JSON are refused without an exception', () => {
  const levels = 100_000
  for (const [head, tail] of [
    ['[', ']'],
    ['{"a":', '}'],
    ['[{"a":', '}]'],
  ] as const) {
    const nested = `{"a":${head.repeat(levels)}1${tail.repeat(levels)}}`
    expect(parseClaims(encode(nested)) === undefined).toBe(true)
    expect(parseClaims(encode(head.repeat(levels))) === undefined).toBe(true)
    expect(parseHeader(encode(nested)) === undefined).toBe(true)
  }
})

test('H14 the deepest JSON that fits into a token causes no exception, even deep in the stack', () => {
  const nested = encode(`{"a":${'['.repeat(2900)}${']'.repeat(2900)}}`)
  const deep = (levels: number): unknown => (levels === 0 ? parseClaims(nested) : [deep(levels - 1)])
  for (const levels of [0, 1000, 4000]) expect(() => deep(levels)).not.toThrow()
})

test('H14 the worst 8 KiB for the parser cost no more than others', () => {
  const worst = [
    'a'.repeat(8192),
    'a.'.repeat(4096),
    `${'a'.repeat(4000)}.${'b'.repeat(4000)}.!`,
    `${'-'.repeat(8191)}.`,
  ]
  const started = performance.now()
  for (const text of worst) for (let i = 0; i < 1000; i++) split(text)
  expect(performance.now() - started).toBeLessThan(2000)
})

test('H15 five segments are refused', () => {
  const jwe = encode('{"alg":"PBES2-HS256+A128KW","enc":"A128GCM","p2c":2147483648,"p2s":"AAAA"}')
  expect(split(`${jwe}.AAAA.AAAA.AAAA.AAAA`)).toBeUndefined()
  expect(parseHeader(jwe)).toBeUndefined()
})
