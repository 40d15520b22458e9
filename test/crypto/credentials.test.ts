import { createHash, randomBytes } from 'node:crypto'
import { crc32 } from 'node:zlib'
import { expect, test } from 'vitest'
import {
  customerOfApiKeyId,
  digest,
  matches,
  newApiKeyId,
  newCredential,
  parseCredential,
  randomId,
} from '../../server/crypto/credentials.ts'
import { formatKid, parseKid } from '../../server/jwt/kid.ts'

const installationKey = randomBytes(32)

test('a customer id has 16 characters, any other id 24, and none is repeated', () => {
  const ids = Array.from({ length: 1000 }, () => randomId(15))
  expect(randomId(10)).toMatch(/^[a-z2-7]{16}$/)
  for (const id of ids) expect(id).toMatch(/^[a-z2-7]{24}$/)
  expect(new Set(ids).size).toBe(1000)
})

test('a digest is the SHA-256 of the text, and matches that text only', () => {
  expect(digest('naïve')).toEqual(createHash('sha256').update('naïve').digest())
  expect(matches(digest('naïve'), 'naïve')).toBe(true)
  for (const other of ['', 'naive', 'naïve ', 'Naïve']) expect(matches(digest('naïve'), other)).toBe(false)
})

test('a digest of another length is an error, not a match', () => {
  expect(() => matches(Buffer.alloc(0), '')).toThrow()
  expect(() => matches(digest('x').subarray(0, 31), 'x')).toThrow()
})

test.each(['assay_ak', 'assay_sv'] as const)(
  'a new %s credential names its id and bears a checksum',
  prefix => {
    const { text, digest: kept } = newCredential(prefix, 'gateway7')
    expect(text).toMatch(new RegExp(`^${prefix}_gateway7_[0-9A-Za-z]{43}_[0-9A-Za-z]{6}$`))
    expect(parseCredential(text)).toEqual({ prefix, id: 'gateway7' })
    expect(kept).toEqual(digest(text))
    expect(matches(kept, text)).toBe(true)
  },
)

test("a credential's checksum is the CRC-32 of the preceding text, in base 62", () => {
  for (let i = 0; i < 200; i++) {
    const { text } = newCredential('assay_ak', 'x')
    expect(base62(text.slice(-6))).toBe(BigInt(crc32(text.slice(0, -7))))
  }
})

test("a credential's secret is 32 bytes, left padded", () => {
  const secrets = Array.from({ length: 2000 }, () => newCredential('assay_ak', 'x').text.split('_')[3]!)
  for (const secret of secrets) expect(base62(secret)).toBeLessThan(2n ** 256n)
  expect(new Set(secrets).size).toBe(2000)
  // 2^256 is close to 62^43: a secret with fewer bits would never begin with the high digits.
  expect(new Set(secrets.map(secret => secret[0])).size).toBeGreaterThan(55)
})

test('every typing error of one character in a credential is found before any look-up', () => {
  const { text } = newCredential('assay_sv', 'gateway7')
  for (let at = 0; at < text.length; at++) {
    const other = text[at] === 'q' ? 'w' : 'q'
    expect(parseCredential(text.slice(0, at) + other + text.slice(at + 1))).toBeUndefined()
  }
})

test('malformed credentials are not parsed', () => {
  const { text } = newCredential('assay_ak', 'x')
  const odd = [
    '',
    'assay_ak',
    text.slice(1),
    text.slice(0, -1),
    `${text}A`,
    `${text}\n`,
    ` ${text}`,
    text.toUpperCase(),
  ]
  for (const other of [...odd, text.replace('_ak_', '_xx_'), text.replace('_x_', '__'), '_'.repeat(1e6)])
    expect(parseCredential(other)).toBeUndefined()
})

test.each(['', 'a_b', 'é', 'a'.repeat(65)])('no credential is created for the id %j', id => {
  expect(() => newCredential('assay_ak', id)).toThrow('credential id')
})

test('an API key id names its customer and fits into a credential', () => {
  const customerId = randomId(10)
  const id = newApiKeyId(installationKey, customerId)
  expect(id).toMatch(/^[a-z2-7]{32}$/)
  expect(customerOfApiKeyId(installationKey, id)).toBe(customerId)
  expect(parseCredential(newCredential('assay_ak', id).text)).toEqual({ prefix: 'assay_ak', id })
})

test('H24 an API key id that was never issued names no customer', () => {
  const id = newApiKeyId(installationKey, randomId(10))
  for (let at = 0; at < id.length; at++)
    for (const other of 'a7')
      if (other !== id[at])
        expect(
          customerOfApiKeyId(installationKey, id.slice(0, at) + other + id.slice(at + 1)),
        ).toBeUndefined()
  for (let i = 0; i < 5000; i++)
    expect(customerOfApiKeyId(installationKey, `${randomId(10)}${randomId(10)}`)).toBeUndefined()
})

test('an API key id of another installation, or of another format, names no customer', () => {
  const id = newApiKeyId(installationKey, randomId(10))
  expect(customerOfApiKeyId(randomBytes(32), id)).toBeUndefined()
  for (const other of ['', id.slice(1), `${id}a`, `${id}\n`, id.toUpperCase(), '__proto__', 'a'.repeat(1e6)])
    expect(customerOfApiKeyId(installationKey, other)).toBeUndefined()
})

test('the MAC of a kid is not valid for an API key id, nor vice versa', () => {
  const customerId = randomId(10)
  const kid = formatKid(installationKey, { customerId, use: 'access', version: 1 })
  const id = newApiKeyId(installationKey, customerId)
  expect(customerOfApiKeyId(installationKey, id.slice(0, 24) + kid.slice(-13).slice(0, 8))).toBeUndefined()
  expect(parseKid(installationKey, kid.slice(0, -13) + id.slice(24) + kid.slice(-5))).toBeUndefined()
})

test('an API key id is only created for a customer id, with a complete installation key', () => {
  expect(() => newApiKeyId(installationKey, 'nobody')).toThrow('customer id')
  for (const length of [0, 31, 33])
    expect(() => newApiKeyId(new Uint8Array(length), randomId(10))).toThrow('32 bytes')
})

function base62(text: string): bigint {
  const digits = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz'
  return [...text].reduce((value, digit) => value * 62n + BigInt(digits.indexOf(digit)), 0n)
}
