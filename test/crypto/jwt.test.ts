import { createHmac, randomBytes } from 'node:crypto'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import {
  type CompactJws,
  encodeHeader,
  macMatches,
  parseClaims,
  parseHeader,
  sign,
  split,
} from '../../server/jwt/jwt.ts'
import { decode, encode } from './mutate.ts'
import { claims, claimsText, header, headerText, parts, secret, signed, token, weAccept } from './token.ts'

test('a signed token can be read again', () => {
  expect(weAccept(token)).toBe(true)
  expect(parseHeader(parts.header)).toEqual(header)
  expect(parseClaims(parts.claims)).toEqual(claims)
  expect(parts).toEqual({
    header: encode(headerText),
    claims: encode(claimsText),
    signature: token.split('.')[2],
    signingInput: `${encode(headerText)}.${encode(claimsText)}`,
  })
})

test('any claims that JSON can express are read back unchanged', () => {
  const object = fc.dictionary(
    fc.string({ unit: 'binary' }),
    fc.jsonValue({ depthSize: 'small', stringUnit: 'binary' }),
  )
  fc.assert(
    fc.property(object, value => {
      const text = JSON.stringify(value)
      fc.pre(!/__proto__|constructor|prototype/.test(text))
      expect(JSON.stringify(parseClaims(encode(text)))).toBe(text)
    }),
    { seed: 1, numRuns: 1000 },
  )
})

test('the header has the members alg, typ and kid in that order, however they are passed', () => {
  const { alg, typ, kid } = header
  expect(sign({ kid, typ, alg }, claims, secret)).toBe(token)
  expect(decode(parts.header)).toBe(`{"alg":"HS512","typ":"at+jwt","kid":"${kid}"}`)
})

test('a header is encoded as in a token', () => {
  expect(encodeHeader(header)).toBe(parts.header)
})

test.each(['HS256', 'HS384', 'HS512'] as const)('%s is the HMAC of RFC 7518', alg => {
  const compact = split(sign({ ...header, alg }, claims, secret))!
  const mac = createHmac(alg.replace('HS', 'sha'), secret).update(compact.signingInput).digest('base64url')
  expect(compact.signature).toBe(mac)
  expect(macMatches(compact, alg, secret)).toBe(true)
  expect(macMatches(compact, alg, randomBytes(64))).toBe(false)
})

test('the example of RFC 7515 appendix A.1 has a matching MAC', () => {
  const key = 'AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow'
  const example =
    'eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLm' +
    'NvbS9pc19yb290Ijp0cnVlfQ.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk'
  const compact = split(example)!
  expect(macMatches(compact, 'HS256', Buffer.from(key, 'base64url'))).toBe(true)
  expect(parseHeader(compact.header)).toBeUndefined()
})

test('a header with a missing member, or one of another type, is refused', () => {
  const { alg, typ, kid } = header
  const odd = [
    { alg, typ },
    { alg, kid },
    { typ, kid },
    {},
    [],
    null,
    'x',
    { alg, typ, kid: 1 },
    { alg, typ, kid: null },
  ]
  const types = ['JWT', 'AT+JWT', 'application/at+jwt', '', 1, ['at+jwt']].map(other => ({
    alg,
    typ: other,
    kid,
  }))
  for (const other of [...odd, ...types, { alg: ['HS512'], typ, kid }])
    expect(parseHeader(encode(JSON.stringify(other)))).toBeUndefined()
})

test('a token has exactly three segments, none of them empty', () => {
  const { header: h, claims: c, signature: s } = parts
  for (const other of [
    '',
    '.',
    '..',
    '...',
    h,
    `${h}.${c}`,
    `${h}.${c}.`,
    `.${c}.${s}`,
    `${h}..${s}`,
    `${token}.`,
  ])
    expect(split(other)).toBeUndefined()
  for (const other of [`${token}.AAAA`, `.${token}`, `${h}.${c}.${c}.${c}.${s}`])
    expect(split(other)).toBeUndefined()
})

test('header and claims have one spelling: no white space, escape, other order or byte order mark', () => {
  for (const respell of [
    (text: string) => text.replace(':', ': '),
    (text: string) => ` ${text}`,
    (text: string) => `${text}\n`,
    (text: string) => `\ufeff${text}`,
    (text: string) => text.replace('a', '\\u0061'),
    (text: string) => text.replace(/\/|\+/, c => `\\u00${c.charCodeAt(0).toString(16)}`),
  ]) {
    expect(weAccept(signed(respell(headerText), claimsText))).toBe(false)
    expect(weAccept(signed(headerText, respell(claimsText)))).toBe(false)
  }
  expect(weAccept(signed(`{"typ":"at+jwt","alg":"HS512","kid":"${header.kid}"}`, claimsText))).toBe(false)
})

test('bytes that are not UTF-8 are refused in header and claims', () => {
  for (const bytes of [[0x80], [0xff], [0xc3], [0xc0, 0xaf], [0xed, 0xa0, 0x80], [0xf4, 0x90, 0x80, 0x80]]) {
    const odd = (text: string) =>
      Buffer.concat([Buffer.from(text.slice(0, -2)), Buffer.from(bytes), Buffer.from('"}')])
    expect(weAccept(signed(odd(headerText), claimsText))).toBe(false)
    expect(weAccept(signed(headerText, odd('{"sub":"a"}')))).toBe(false)
  }
})

test('a signature over other claims, or of another token, does not match', () => {
  const other = split(sign(header, { ...claims, sub: 'admin' }, secret))!
  const swapped: CompactJws = { ...other, signature: parts.signature }
  expect(macMatches(swapped, 'HS512', secret)).toBe(false)
  expect(weAccept(`${parts.header}.${other.claims}.${parts.signature}`)).toBe(false)
})
