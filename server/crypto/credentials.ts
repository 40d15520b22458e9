import { hash, randomBytes, timingSafeEqual } from 'node:crypto'
import { crc32 } from 'node:zlib'
import { encodeBase32 } from './base32.ts'
import { installationMac } from './mac.ts'

const DIGITS = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz'
const CREDENTIAL = /^(assay_ak|assay_sv|assay_ot)_([A-Za-z0-9]{1,64})_[A-Za-z0-9]{43}_([A-Za-z0-9]{6})$/
const CUSTOMER_ID = /^[a-z2-7]{16}$/
const API_KEY_ID = /^([a-z2-7]{16})([a-z2-7]{8})([a-z2-7]{8})$/

/** Shows readers and secret scanners what kind of secret it is: an API key, a service's credential, or a one-time token. */
type Prefix = 'assay_ak' | 'assay_sv' | 'assay_ot'

/** Customer ids have 10 random bytes (16 characters); session ids, `jti` and the rest 15 (24 characters). */
export function randomId(bytes: 10 | 15): string {
  return encodeBase32(drawn(bytes))
}

/** A source of unguessable bytes. `what` names the value; each caller uses a different one for each value. */
export type RandomSource = (bytes: number, what: string) => Buffer

export const fromTheSystem: RandomSource = bytes => randomBytes(bytes)

/**
 * Derives the bytes from the installation key and `seed`, which a retry sends again, so that the retry gets
 * the same credential although we don't store it.
 */
export const fromRetry =
  (installationKey: Uint8Array, seed: string): RandomSource =>
  (bytes, what) =>
    hash(
      'sha256',
      installationMac(installationKey, 'retry', JSON.stringify([what, seed]), 32),
      'buffer',
    ).subarray(0, bytes)

export const newCustomerId = (draw: RandomSource) => encodeBase32(draw(10, 'customer id'))

/** Random bytes in reserve: one system call per 4 KiB instead of one per id. No byte is used twice. */
let ahead = Buffer.alloc(0)

function drawn(bytes: number): Buffer {
  if (ahead.length < bytes) ahead = randomBytes(RANDOM_POOL_BYTES)
  const taken = ahead.subarray(0, bytes)
  ahead = ahead.subarray(bytes)
  return taken
}

const RANDOM_POOL_BYTES = 4_096

/**
 * SHA-256 is enough because our secrets are 256 random bits: a slow hash only helps when secrets can be
 * guessed.
 */
export function digest(text: string): Buffer {
  return hash('sha256', text, 'buffer')
}

/** Compares in constant time. Throws if `expected` isn't 32 bytes, which no column of ours holds. */
export function matches(expected: Uint8Array, text: string): boolean {
  return timingSafeEqual(expected, digest(text))
}

/** `text` is shown to its owner once; only `digest` is kept. */
export function newCredential(
  prefix: Prefix,
  id: string,
  draw = fromTheSystem,
): { text: string; digest: Buffer } {
  // 62^43 is just over 2^256.
  const body = `${prefix}_${id}_${base62(BigInt(`0x${draw(32, 'credential').toString('hex')}`), 43)}`
  const text = `${body}_${checksum(body)}`
  if (!CREDENTIAL.test(text)) throw new Error('a credential id is 1 to 64 letters and digits')
  return { text, digest: digest(text) }
}

/**
 * The prefix and id of a well-formed credential; only `matches` shows whether it is genuine. The checksum is not secret: it
 * catches typing errors, and scanners can distinguish leaked credentials from similar texts.
 */
export function parseCredential(text: string): { prefix: Prefix; id: string } | undefined {
  const [, prefix, id, sum] = CREDENTIAL.exec(text) ?? []
  if (prefix === undefined || id === undefined) return undefined
  return checksum(text.slice(0, -7)) === sum ? { prefix: prefix as Prefix, id } : undefined
}

/** A token that is accepted once. Its id is that of its customer. */
export const newOneTimeToken = (customerId: string) => newCredential('assay_ot', customerId)

/** The customer that a one-time token names, and the token's digest; undefined for any other text. */
export function parseOneTimeToken(text: string): { customerId: string; digest: Buffer } | undefined {
  const parsed = parseCredential(text)
  if (parsed?.prefix !== 'assay_ot' || !CUSTOMER_ID.test(parsed.id)) return undefined
  return { customerId: parsed.id, digest: digest(text) }
}

/**
 * An API key's id contains its customer's id and a MAC, so that made-up ids cost no query. Characters:
 * customer 16, random 8, MAC 8.
 */
export function newApiKeyId(installationKey: Uint8Array, customerId: string, draw = fromTheSystem): string {
  if (!CUSTOMER_ID.test(customerId)) throw new Error('not a customer id')
  const name = customerId + encodeBase32(draw(5, 'api key id'))
  return name + installationMac(installationKey, 'api key id', name, 5)
}

const SERVICE_ID = /^([a-z2-7]{16})([a-z2-7]{8})$/

/** Generates a service's id, with a MAC as in an API key's id. Characters: random 16, MAC 8. */
export function newServiceId(installationKey: Uint8Array): string {
  const name = encodeBase32(randomBytes(10))
  return name + installationMac(installationKey, 'service id', name, 5)
}

/** Whether we generated this id. Compares in constant time. */
export function isServiceId(installationKey: Uint8Array, id: string): boolean {
  const [, name, mac] = SERVICE_ID.exec(id) ?? []
  if (name === undefined || mac === undefined) return false
  return timingSafeEqual(
    Buffer.from(mac),
    Buffer.from(installationMac(installationKey, 'service id', name, 5)),
  )
}

/** The customer that an API key id names. Doesn't check that we generated the id. */
export const customerNamedBy = (id: string) => id.slice(0, 16)

/**
 * The customer of an API key id that we generated; undefined for any other text. Compares in constant time.
 */
export function customerOfApiKeyId(installationKey: Uint8Array, id: string): string | undefined {
  const [, customerId, random, mac] = API_KEY_ID.exec(id) ?? []
  if (customerId === undefined || mac === undefined) return undefined
  const expected = installationMac(installationKey, 'api key id', `${customerId}${random}`, 5)
  return timingSafeEqual(Buffer.from(mac), Buffer.from(expected)) ? customerId : undefined
}

function checksum(text: string): string {
  let digits = ''
  for (let rest = crc32(text); rest > 0; rest = Math.floor(rest / 62)) digits = DIGITS[rest % 62] + digits
  return digits.padStart(6, '0')
}

function base62(value: bigint, width: number): string {
  let digits = ''
  for (let rest = value; rest > 0n; rest /= 62n) digits = DIGITS[Number(rest % 62n)] + digits
  return digits.padStart(width, '0')
}
