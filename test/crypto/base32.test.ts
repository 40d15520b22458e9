import fc from 'fast-check'
import { expect, test } from 'vitest'
import { encodeBase32 } from '../../server/crypto/base32.ts'

test.each([
  ['', ''],
  ['f', 'my'],
  ['fo', 'mzxq'],
  ['foo', 'mzxw6'],
  ['foob', 'mzxw6yq'],
  ['fooba', 'mzxw6ytb'],
  ['foobar', 'mzxw6ytboi'],
])('%j is encoded as in RFC 4648 section 10, in lower case and without padding: %j', (text, encoded) => {
  expect(encodeBase32(Buffer.from(text))).toBe(encoded)
})

test('any bytes can be decoded again', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 64 }), bytes => {
      expect(decodeBase32(encodeBase32(bytes))).toEqual([...bytes])
    }),
    { seed: 32 },
  )
})

function decodeBase32(text: string): number[] {
  const bits = [...text]
    .map(c => 'abcdefghijklmnopqrstuvwxyz234567'.indexOf(c).toString(2).padStart(5, '0'))
    .join('')
  return (bits.match(/.{8}/g) ?? []).map(byte => Number.parseInt(byte, 2))
}
