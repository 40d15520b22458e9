import { constants, createHash, type KeyObject, privateEncrypt } from 'node:crypto'
import type { Alg } from './local.ts'

/** Invalid signatures that a faulty verifier accepts. */

/** Orders of the base points of P-256 (SEC 2 2.4.2) and of Ed25519 (RFC 8032 5.1). */
const P256_ORDER = 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551n
const ED25519_ORDER = 2n ** 252n + 27742317777372353535851937790883648493n
const ED25519_PRIME = 2n ** 255n - 19n

const integer = (bytes: Buffer) => BigInt(`0x${bytes.toString('hex')}`)
const bigEndian = (value: bigint, length: number) =>
  Buffer.from(value.toString(16).padStart(length * 2, '0'), 'hex')
const littleEndian = (value: bigint, length: number) => bigEndian(value, length).reverse()

interface Signed {
  input: string
  signature: Buffer
  privateKey: KeyObject
  publicKey: KeyObject
}

export function oddSignatures(alg: Alg, signed: Signed): Record<string, Buffer> {
  if (alg === 'EdDSA') return oddEd25519(signed)
  return alg === 'ES256' ? oddP256(signed) : oddRsa(signed)
}

/** The other valid signature of the same message (SEC 1 4.1.4 accepts s and n - s). */
export function malleated(signature: Buffer): Buffer {
  const s = integer(signature.subarray(32))
  return Buffer.concat([signature.subarray(0, 32), bigEndian(P256_ORDER - s, 32)])
}

function oddP256({ signature }: Signed): Record<string, Buffer> {
  const [r, s] = [integer(signature.subarray(0, 32)), integer(signature.subarray(32))]
  const of = (first: bigint, second: bigint) => Buffer.concat([bigEndian(first, 32), bigEndian(second, 32)])
  const values = { '0': 0n, '1': 1n, n: P256_ORDER, 'n - 1': P256_ORDER - 1n, '2^256 - 1': 2n ** 256n - 1n }
  const pairs = Object.entries(values).flatMap(([first, one]) =>
    Object.entries(values).map(([second, two]) => [`r = ${first}, s = ${second}`, of(one, two)]),
  )
  return {
    ...Object.fromEntries(pairs),
    'r = 0': of(0n, s),
    's = 0': of(r, 0n),
    's = n': of(r, P256_ORDER),
    'r and s exchanged': of(s, r),
    'n - r': of(P256_ORDER - r, s),
    'in DER': der(r, s),
    'in DER, cut to the length': der(r, s).subarray(0, 64),
    'r and s of 33 bytes': Buffer.concat([bigEndian(r, 33), bigEndian(s, 33)]),
  }
}

function der(...integers: bigint[]): Buffer {
  const parts = integers.map(value => {
    const hex = value.toString(16)
    const bytes = Buffer.from(hex.padStart(hex.length + (hex.length % 2), '0'), 'hex')
    const positive = bytes[0]! < 0x80 ? bytes : Buffer.concat([Buffer.of(0), bytes])
    return Buffer.concat([Buffer.of(2, positive.length), positive])
  })
  const content = Buffer.concat(parts)
  return Buffer.concat([Buffer.of(0x30, content.length), content])
}

/**
 * Points of small order (1, 2, 4 and 8), including non-canonical encodings: coordinates beyond the prime, and zero with a
 * sign.
 */
const SMALL_ORDER = [
  littleEndian(1n, 32),
  littleEndian(ED25519_PRIME - 1n, 32),
  littleEndian(0n, 32),
  littleEndian(ED25519_PRIME, 32),
  littleEndian(ED25519_PRIME + 1n, 32),
  littleEndian(1n + 2n ** 255n, 32),
  Buffer.from('26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05', 'hex'),
  Buffer.from('c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a', 'hex'),
]

function oddEd25519({ signature, publicKey }: Signed): Record<string, Buffer> {
  const [r, s] = [signature.subarray(0, 32), integer(Buffer.from(signature.subarray(32)).reverse())]
  const own = Buffer.from(publicKey.export({ format: 'jwk' }).x!, 'base64url')
  const of = (point: Buffer, scalar: bigint) => Buffer.concat([point, littleEndian(scalar, 32)])
  const added = [1n, 2n, 3n, 7n].map(times => [`S + ${times} L`, of(r, s + times * ED25519_ORDER)])
  const small = SMALL_ORDER.flatMap((point, i) => [
    [`R of small order ${i}, S = 0`, of(point, 0n)],
    [`R of small order ${i}, S = L`, of(point, ED25519_ORDER)],
    [`R of small order ${i}`, of(point, s)],
  ])
  return {
    ...Object.fromEntries([...added, ...small]),
    'S = 0': of(r, 0n),
    'L - S': of(r, ED25519_ORDER - s),
    'R and S exchanged': Buffer.concat([signature.subarray(32), r]),
    'the other sign of R': flipped(signature, 31),
    'the highest bit of S': flipped(signature, 63),
    'R is the public key, S = 0': of(own, 0n),
    'R is the public key': of(own, s),
  }
}

function flipped(signature: Buffer, at: number): Buffer {
  const copy = Buffer.from(signature)
  copy[at]! ^= 0x80
  return copy
}

/** DER of the DigestInfo before the digest (RFC 8017 9.2 note 1). */
const SHA256 = Buffer.from('3031300d060960864801650304020105000420', 'hex')

function oddRsa({ input, signature, privateKey, publicKey }: Signed): Record<string, Buffer> {
  const n = integer(Buffer.from(publicKey.export({ format: 'jwk' }).n!, 'base64url'))
  const value = integer(signature)
  const numbers = { '0': 0n, '1': 1n, 'n - 1': n - 1n, n, 'n - s': n - value }
  const plain = Object.entries(numbers).map(([name, number]) => [`s = ${name}`, bigEndian(number, 256)])
  const paddings = Object.entries(oddPaddings(createHash('sha256').update(input).digest()))
  return {
    ...Object.fromEntries([...plain, ...paddings.map(([name, em]) => [name, raw(privateKey, em)])]),
    's + n': bigEndian(value + n, 257),
    's with a zero before it': bigEndian(value, 257),
    's with a zero after it': Buffer.concat([signature, Buffer.of(0)]),
    'in the other order of bytes': Buffer.from(signature).reverse(),
  }
}

const raw = (key: KeyObject, encoded: Buffer) =>
  privateEncrypt({ key, padding: constants.RSA_NO_PADDING }, encoded)

/** Encoded messages (RFC 8017 9.2) that are accepted by a verifier that parses the padding instead of comparing it. */
function oddPaddings(digest: Buffer): Record<string, Buffer> {
  const info = Buffer.concat([SHA256, digest])
  const withoutNull = Buffer.from('302f300b0609608648016503040201', 'hex')
  const sha512 = Buffer.from('3051300d060960864801650304020305000440', 'hex')
  const long = Buffer.from('308131300d060960864801650304020105000420', 'hex')
  return {
    'no DigestInfo': padded(digest),
    'a DigestInfo without NULL': padded(Buffer.concat([withoutNull, Buffer.of(4, 32), digest])),
    'a DigestInfo with a long length': padded(Buffer.concat([long, digest])),
    'the name of another hash': padded(Buffer.concat([sha512, digest, digest])),
    'bytes after the digest': Buffer.concat([padded(info, 200), Buffer.alloc(56, 7)]),
    'eight bytes of padding, then the digest': Buffer.concat([padded(info, 62), Buffer.alloc(194, 7)]),
    'no padding': Buffer.concat([Buffer.of(0, 1, 0), info, Buffer.alloc(253 - info.length)]),
    'padding of zeros': padded(info, 256, { filler: 0 }),
    'padding with another byte': replaced(padded(info), 100, 0xfe),
    'padding for encryption': padded(info, 256, { type: 2 }),
    'a first byte that is not zero': replaced(padded(info), 0, 1),
    'no zero before the DigestInfo': replaced(padded(info), 255 - info.length, 0xff),
    'another digest': padded(Buffer.concat([SHA256, Buffer.alloc(32)])),
  }
}

function padded(content: Buffer, length = 256, { type = 1, filler = 0xff } = {}): Buffer {
  const padding = Buffer.alloc(length - content.length - 3, filler)
  return Buffer.concat([Buffer.of(0, type), padding, Buffer.of(0), content])
}

function replaced(bytes: Buffer, at: number, byte: number): Buffer {
  bytes[at] = byte
  return bytes
}
