import { createHmac, randomBytes } from 'node:crypto'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { encodeBase32 } from '../../server/crypto/base32.ts'
import { randomId } from '../../server/crypto/credentials.ts'
import { formatKid, parseKid } from '../../server/jwt/kid.ts'

const installationKey = randomBytes(32)
const customerId = randomId(10)
const kid = formatKid(installationKey, { customerId, use: 'access', version: 7 })

test('a kid can be parsed into the name of its key', () => {
  const version = fc.integer({ min: 1, max: 2 ** 31 - 1 })
  fc.assert(
    fc.property(fc.constantFrom('access', 'refresh'), version, (use, version) => {
      const name = { customerId: randomId(10), use, version }
      expect(parseKid(installationKey, formatKid(installationKey, name))).toEqual(name)
    }),
    { seed: 7 },
  )
})

test('a kid consists of the customer, the use and version, and a MAC of 8 bytes', () => {
  expect(kid).toMatch(new RegExp(`^${customerId}\\.a7\\.[a-z2-7]{13}$`))
  const refresh = formatKid(installationKey, { customerId, use: 'refresh', version: 7 })
  expect(refresh).toMatch(new RegExp(`^${customerId}\\.r7\\.[a-z2-7]{13}$`))
  expect(refresh.slice(-13)).not.toBe(kid.slice(-13))
})

test('the same key always has the same kid within an installation', () => {
  const name = { customerId: 'aaaaaaaaaaaaaaaa', use: 'access', version: 1 } as const
  const fixed = new Uint8Array(32).fill(1)
  expect(formatKid(fixed, name)).toBe(formatKid(fixed, name))
  const derived = createHmac('sha256', fixed).update('assay kid').digest()
  const mac = createHmac('sha256', derived).update('aaaaaaaaaaaaaaaa.a1').digest().subarray(0, 8)
  expect(formatKid(fixed, name)).toBe(`aaaaaaaaaaaaaaaa.a1.${encodeBase32(mac)}`)
})

test('H05 a kid with any one character changed is refused', () => {
  for (let at = 0; at < kid.length; at++)
    for (const other of 'a27.r0A')
      if (other !== kid[at])
        expect(parseKid(installationKey, kid.slice(0, at) + other + kid.slice(at + 1))).toBeUndefined()
})

test("H05 a key's MAC is not valid for another customer, use or version", () => {
  const [, , mac] = kid.split('.')
  for (const name of [`${randomId(10)}.a7`, `${customerId}.r7`, `${customerId}.a8`, `${customerId}.a70`])
    expect(parseKid(installationKey, `${name}.${mac}`)).toBeUndefined()
  expect(parseKid(randomBytes(32), kid)).toBeUndefined()
})

test('H05 malformed kids are refused by their format', () => {
  const [, , mac] = kid.split('.')
  const versions = ['0', '07', '-7', '+7', '7.0', '7e0', ' 7', '2147483648', '9999999999', '99999999999', '']
  const odd = [
    '',
    '.',
    '..',
    "' or 1=1 --",
    '../../etc/passwd',
    '__proto__',
    'constructor',
    '\u0000',
    'a'.repeat(65536),
  ]
  const nearly = [
    `${kid}\n`,
    ` ${kid}`,
    `${kid}.`,
    kid.toUpperCase(),
    kid.replace('a7', 'а7'),
    `${kid}=`,
    kid.slice(0, -1),
  ]
  for (const other of [...versions.map(v => `${customerId}.a${v}.${mac}`), ...odd, ...nearly])
    expect(parseKid(installationKey, other)).toBeUndefined()
})

test.each([
  { customerId: 'x', use: 'access', version: 1 },
  { customerId, use: 'access', version: 0 },
  { customerId, use: 'access', version: 1.5 },
  { customerId, use: 'access', version: Number.NaN },
  { customerId, use: 'refresh', version: 2 ** 31 },
] as const)('no kid is created for $customerId $use $version', name => {
  expect(() => formatKid(installationKey, name)).toThrow('signing key')
})

test('no kid is created with an empty or short installation key', () => {
  for (const length of [0, 16, 31])
    expect(() => formatKid(new Uint8Array(length), { customerId, use: 'access', version: 1 })).toThrow(
      '32 bytes',
    )
})
