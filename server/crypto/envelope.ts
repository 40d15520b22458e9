import {
  createCipheriv,
  createDecipheriv,
  createHmac,
  hkdfSync,
  randomBytes,
  timingSafeEqual,
} from 'node:crypto'

/** A master key or a customer's data key: 32 bytes, and the id by which encrypted records name it. */
export interface SealingKey {
  id: string
  bytes: Uint8Array
}

/** The place a record belongs to. It is authenticated but not stored: a record that was moved elsewhere can't be decrypted. */
export interface Context {
  installation: string
  customer: string
  purpose: string
  version: number
}

export type SealReason = keyof typeof MESSAGES

const MESSAGES = {
  malformed: 'not an encrypted record',
  unknown_key: 'encrypted with a key that is missing',
  wrong_key: 'encrypted with another key of the same id',
  altered: 'altered, or moved from another record',
} as const

/** Its message may name the key's id; it never contains bytes of the record or the key. */
export class SealError extends Error {
  readonly reason: SealReason

  constructor(reason: SealReason, keyId?: string) {
    super(keyId === undefined ? MESSAGES[reason] : `${MESSAGES[reason]} (key id ${keyId})`)
    this.reason = reason
  }
}

const KEY_ID = /^[A-Za-z0-9._-]{1,32}$/
const VERSION = 1
const AES_256_GCM = 1
// Bytes.
const SALT_BYTES = 16
const NONCE_BYTES = 12
const COMMITMENT_BYTES = 32
const TAG_BYTES = 16

/**
 * Encrypts a secret for storage: `version | alg | key id length, key id | salt | nonce | commitment | ciphertext | tag`.
 * AES-256-GCM under a key derived for this record alone, so nonces can't collide. GCM doesn't commit to its key: a ciphertext can
 * be valid under several keys. The commitment, derived together with the key, prevents that and distinguishes a wrong key from a
 * changed record.
 */
export function seal(key: SealingKey, secret: Uint8Array, context: Context): Buffer {
  if (secret.length === 0) throw new Error("an empty secret can't be encrypted")
  const header = headerOf(key)
  const salt = randomBytes(SALT_BYTES)
  const nonce = randomBytes(NONCE_BYTES)
  const { recordKey, commitment } = derive(key, salt)
  const cipher = createCipheriv('aes-256-gcm', recordKey, nonce, { authTagLength: TAG_BYTES })
  cipher.setAAD(authenticated(header, context))
  const ciphertext = [cipher.update(secret), cipher.final()]
  return Buffer.concat([header, salt, nonce, commitment, ...ciphertext, cipher.getAuthTag()])
}

/**
 * Returns the secret or throws a SealError. A changed salt or commitment looks like a wrong key, so
 * `wrong_key` can mean either. If the master key's check value matched, suspect the record.
 */
export function open(
  keyOf: (id: string) => SealingKey | undefined,
  sealed: Uint8Array,
  context: Context,
): Buffer {
  const record = parse(sealed)
  if (record === undefined) throw new SealError('malformed')
  const key = keyOf(record.keyId)
  if (key === undefined) throw new SealError('unknown_key', record.keyId)
  const { recordKey, commitment } = derive(key, record.salt)
  if (!timingSafeEqual(commitment, record.commitment)) throw new SealError('wrong_key', record.keyId)
  const decipher = createDecipheriv('aes-256-gcm', recordKey, record.nonce, { authTagLength: TAG_BYTES })
  decipher.setAAD(authenticated(record.header, context)).setAuthTag(record.tag)
  try {
    return Buffer.concat([decipher.update(record.ciphertext), decipher.final()])
  } catch {
    throw new SealError('altered', record.keyId)
  }
}

/**
 * The id of the key that encrypted a record, or undefined if this is not an encrypted record. The id is not authenticated until
 * the record is decrypted.
 */
export function sealedUnder(sealed: Uint8Array): string | undefined {
  return parse(sealed)?.keyId
}

/** Distinguishes master keys in error messages and in `master_keys`, without revealing them: 16 hex characters. */
export function checkValue(key: SealingKey): string {
  return createHmac('sha256', bytesOf(key)).update('assay master key check').digest('hex').slice(0, 16)
}

function headerOf(key: SealingKey): Buffer {
  if (!KEY_ID.test(key.id)) throw new Error('a key id is 1 to 32 of A-Z a-z 0-9 . _ -')
  return Buffer.concat([Buffer.of(VERSION, AES_256_GCM, key.id.length), Buffer.from(key.id)])
}

function parse(sealed: Uint8Array) {
  const bytes = Buffer.from(sealed.buffer, sealed.byteOffset, sealed.byteLength)
  const [version, alg, idLength = 0] = bytes
  const header = bytes.subarray(0, 3 + idLength)
  const keyId = header.toString('latin1', 3)
  const body = bytes.subarray(header.length)
  const known = version === VERSION && alg === AES_256_GCM && KEY_ID.test(keyId)
  // The ciphertext has at least a byte, because no empty secret is encrypted.
  if (!known || body.length <= SALT_BYTES + NONCE_BYTES + COMMITMENT_BYTES + TAG_BYTES) return undefined
  return { header, keyId, ...parseBody(body) }
}

function parseBody(body: Buffer) {
  return {
    salt: body.subarray(0, SALT_BYTES),
    nonce: body.subarray(SALT_BYTES, SALT_BYTES + NONCE_BYTES),
    commitment: body.subarray(SALT_BYTES + NONCE_BYTES, SALT_BYTES + NONCE_BYTES + COMMITMENT_BYTES),
    ciphertext: body.subarray(SALT_BYTES + NONCE_BYTES + COMMITMENT_BYTES, -TAG_BYTES),
    tag: body.subarray(-TAG_BYTES),
  }
}

function derive(key: SealingKey, salt: Uint8Array) {
  const derived = Buffer.from(hkdfSync('sha256', bytesOf(key), salt, 'assay sealed record key', 64))
  return { recordKey: derived.subarray(0, 32), commitment: derived.subarray(32) }
}

function bytesOf(key: SealingKey): Uint8Array {
  if (key.bytes.length !== 32) throw new Error(`key ${key.id} is not 32 bytes`)
  return key.bytes
}

/**
 * The additional authenticated data. Each part is length-prefixed, so that no two contexts give the same
 * bytes.
 */
function authenticated(header: Uint8Array, context: Context): Buffer {
  const { installation, customer, purpose, version } = context
  const parts = ['assay sealed record', header, installation, customer, purpose, String(version)]
  return Buffer.concat(parts.flatMap(lengthPrefixed))
}

function lengthPrefixed(part: string | Uint8Array): Uint8Array[] {
  const bytes = typeof part === 'string' ? Buffer.from(part) : part
  const length = Buffer.alloc(4)
  length.writeUInt32BE(bytes.length)
  return [length, bytes]
}
