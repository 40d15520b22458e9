import { createHmac, randomBytes } from 'node:crypto'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import {
  type Context,
  checkValue,
  open,
  SealError,
  type SealingKey,
  seal,
  sealedUnder,
} from '../../server/crypto/envelope.ts'

const key: SealingKey = { id: 'master-1', bytes: randomBytes(32) }
const secret = randomBytes(64)
const context: Context = { installation: 'i1', customer: 'c1', purpose: 'access', version: 1 }
const sealed = seal(key, secret, context)
const HEADER = 3 + key.id.length
const onlyKey = (id: string) => (id === key.id ? key : undefined)

/** The reason why it cannot be decrypted, or 'opened'. */
function outcome(bytes: Uint8Array, keyOf: Parameters<typeof open>[0] = onlyKey, where = context): string {
  try {
    open(keyOf, bytes, where)
    return 'opened'
  } catch (error) {
    return error instanceof SealError ? error.reason : 'another error'
  }
}

test('a sealed secret can be decrypted with its key, in its context', () => {
  expect(open(onlyKey, sealed, context)).toEqual(secret)
})

test('secrets of every length are decrypted unchanged', () => {
  fc.assert(
    fc.property(
      fc.uint8Array({ minLength: 1, maxLength: 300 }),
      fc.string(),
      fc.nat(),
      (bytes, customer, version) => {
        const where = { ...context, customer, version }
        expect([...open(onlyKey, seal(key, bytes, where), where)]).toEqual([...bytes])
      },
    ),
    { seed: 54 },
  )
})

test('a sealed record has the format in docs/architecture.md, and reveals no byte of the secret', () => {
  expect([...sealed.subarray(0, 3)]).toEqual([1, 1, key.id.length])
  expect(sealed.toString('latin1', 3, HEADER)).toBe(key.id)
  expect(sealed.length).toBe(HEADER + 16 + 12 + 32 + secret.length + 16)
  expect(sealed.includes(secret.subarray(0, 4))).toBe(false)
})

test('sealing a secret again gives different bytes', () => {
  const other = seal(key, secret, context)
  expect(other.subarray(HEADER).equals(sealed.subarray(HEADER))).toBe(false)
  expect(other.subarray(HEADER, HEADER + 60).equals(sealed.subarray(HEADER, HEADER + 60))).toBe(false)
})

test('H54 every single flipped bit of a sealed record is refused', () => {
  const reasons = new Set<string>()
  for (let bit = 0; bit < sealed.length * 8; bit++) {
    const flipped = Buffer.from(sealed)
    flipped[bit >> 3]! ^= 1 << (bit & 7)
    // The worst case for a changed key id: a ring that has the same key under every name.
    reasons.add(outcome(flipped)).add(outcome(flipped, id => ({ ...key, id })))
  }
  expect([...reasons].sort()).toEqual(['altered', 'malformed', 'unknown_key', 'wrong_key'])
})

test.each([
  ['installation', { installation: 'i2' }],
  ['customer', { customer: 'c2' }],
  ['purpose', { purpose: 'refresh' }],
  ['version', { version: 2 }],
])('H54 a record moved to another %s cannot be decrypted', (_, moved) => {
  expect(outcome(sealed, onlyKey, { ...context, ...moved })).toBe('altered')
})

test('H54 two contexts that concatenate to the same text are different contexts', () => {
  const record = seal(key, secret, { ...context, customer: 'ab', purpose: 'c' })
  expect(outcome(record, onlyKey, { ...context, customer: 'a', purpose: 'bc' })).toBe('altered')
  expect(outcome(record, onlyKey, { ...context, customer: 'abc', purpose: '' })).toBe('altered')
})

test('H54 a wrong key and a changed row are different errors', () => {
  const stranger = { id: key.id, bytes: randomBytes(32) }
  expect(outcome(sealed, () => stranger)).toBe('wrong_key')
  expect(outcome(sealed, () => undefined)).toBe('unknown_key')
  for (const at of [HEADER + 16, HEADER + 60, sealed.length - 17, sealed.length - 1]) {
    const changed = Buffer.from(sealed)
    changed[at]! ^= 1
    expect(outcome(changed)).toBe('altered')
  }
})

test('H54 a truncated or extended record is refused', () => {
  for (let length = 0; length < sealed.length; length++)
    expect(outcome(sealed.subarray(0, length))).toMatch(/malformed|altered/)
  expect(outcome(sealed.subarray(0, HEADER + 16 + 12 + 32 + 16))).toBe('malformed')
  expect(outcome(Buffer.concat([sealed, Buffer.of(0)]))).toBe('altered')
  expect(outcome(new Uint8Array(0))).toBe('malformed')
  expect(outcome(randomBytes(200).fill(0, 0, 1))).toBe('malformed')
})

test('a record of a future version or algorithm is malformed, not altered', () => {
  for (const at of [0, 1]) {
    const later = Buffer.from(sealed)
    later[at] = 2
    expect(outcome(later)).toBe('malformed')
  }
})

test('an error names the key and contains no byte of the record, the secret or the key', () => {
  const bytes = (part: Uint8Array) =>
    ['hex', 'base64', 'latin1'].map(e => Buffer.from(part).toString(e as 'hex'))
  for (const keyOf of [() => undefined, () => ({ id: key.id, bytes: randomBytes(32) })]) {
    const message = messageOf(() => open(keyOf, sealed, context))
    expect(message).toContain(key.id)
    for (const text of [key.bytes, secret, sealed].flatMap(bytes))
      expect(message).not.toContain(text.slice(0, 8 * 8))
  }
})

test('a sealed record names its key; other bytes name none', () => {
  expect(sealedUnder(sealed)).toBe(key.id)
  expect(sealedUnder(new Uint8Array(sealed))).toBe(key.id)
  for (const other of [new Uint8Array(0), randomBytes(200).fill(9, 0, 1), sealed.subarray(0, HEADER)])
    expect(sealedUnder(other)).toBeUndefined()
})

test('H04 only a key of 32 bytes seals, opens or has a check value, and nothing empty is sealed', () => {
  for (const length of [0, 16, 31, 33, 64]) {
    const odd = { id: key.id, bytes: new Uint8Array(length) }
    expect(() => seal(odd, secret, context)).toThrow('32 bytes')
    expect(() => open(() => odd, sealed, context)).toThrow('32 bytes')
    expect(() => checkValue(odd)).toThrow('32 bytes')
  }
  expect(() => seal(key, new Uint8Array(0), context)).toThrow('empty')
})

test.each(['', 'a b', 'é', 'a/b', 'x'.repeat(33)])('nothing is sealed under a key with the id %j', id => {
  expect(() => seal({ ...key, id }, secret, context)).toThrow('key id')
})

test('a check value identifies keys by their bytes, not by their names', () => {
  const mac = createHmac('sha256', key.bytes).update('assay master key check').digest('hex')
  expect(checkValue(key)).toBe(mac.slice(0, 16))
  expect(checkValue({ ...key, id: 'other' })).toBe(checkValue(key))
  expect(checkValue({ ...key, bytes: randomBytes(32) })).not.toBe(checkValue(key))
})

function messageOf(act: () => unknown): string {
  try {
    act()
  } catch (error) {
    return String(error)
  }
  throw new Error('it did not fail')
}
