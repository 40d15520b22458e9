import { randomBytes } from 'node:crypto'
import type { Querier } from '../../db/queries/change-feed.ts'
import { type ApiKeyRow, findRecords, type KeyRow, type RecordRow } from '../../db/queries/customer-keys.ts'
import { type Context, open, type SealingKey, seal } from '../crypto/envelope.ts'
import type { KeyRing } from '../crypto/key-ring.ts'
import {
  type Algorithm,
  type AsymmetricAlgorithm,
  type HmacAlgorithm,
  isAsymmetric,
} from '../jwt/algorithms.ts'
import { customerIssuer } from '../jwt/customer-issuer.ts'
import { encodeHeader, type ProtectedHeader } from '../jwt/jwt.ts'
import { KeyPair } from '../jwt/key-pair.ts'
import { formatKid, type KeyName, type Use } from '../jwt/kid.ts'

interface AnyKey {
  readonly kid: string
  readonly use: Use
  readonly version: number
  /** The encoded protected header, which is the same for all tokens of this key. */
  readonly header: string
  readonly record: CustomerRecord
}

export interface HmacKey extends AnyKey {
  readonly alg: HmacAlgorithm
  readonly secret: Buffer
  /** Unique in this process. A key gets a new serial each time its record is read and decrypted. */
  readonly identity: number
  readonly pair?: undefined
}

export interface AsymmetricKey extends AnyKey {
  readonly alg: AsymmetricAlgorithm
  readonly pair: KeyPair
  /** The public JWK: verified tokens stay verified, however often the record is reloaded. */
  readonly identity: string
  /** Whether the key is published but signs nothing yet. */
  readonly isNext: boolean
  /** The `iss` of the tokens that it signs. */
  readonly issuer: string
}

export type SigningKey = HmacKey | AsymmetricKey

export interface ApiKey {
  readonly id: string
  readonly digest: Buffer
  /** RFC 6749 3.3; '*' is any. */
  readonly scope: string
  /** NumericDate. */
  readonly expiresAt: number | undefined
}

/** Everything needed to verify a customer's tokens and credentials, as of one number of the change feed. */
export interface CustomerRecord {
  readonly customerId: string
  /** `broken`: the row can't be decrypted. Other customers are not affected. */
  readonly state: 'active' | 'disabled' | 'absent' | 'broken'
  readonly epoch: number
  /** From the customer's policy. */
  readonly tokensPerMinute: number | undefined
  // There are a hundred thousand records, and most have two keys and one API key. To save memory, lists have
  // their exact length (an array that is pushed to reserves room for 17), and a set exists only once it has a
  // member.
  keys: readonly SigningKey[]
  apiKeys: readonly ApiKey[]
  /** Kids and API key ids that we once made and that no longer exist. */
  gone: Set<string> | undefined
}

/** As long as SHA-512's output, which is the shortest key that HS512 allows (RFC 7518 3.2). */
const SECRET_BYTES = 64
/** The most kids and API key ids that are cached as missing, per customer. */
const MAX_MISSING_KEYS = 1_000

export const keyOf = (record: CustomerRecord, kid: string) => record.keys.find(key => key.kid === kid)

export const apiKeyOf = (record: CustomerRecord, id: string) => record.apiKeys.find(key => key.id === id)

export const has = (record: CustomerRecord, wanted: string) =>
  keyOf(record, wanted) !== undefined || apiKeyOf(record, wanted) !== undefined

export const isMissing = (record: CustomerRecord, wanted: string) => record.gone?.has(wanted) === true

/**
 * Remembers that a kid or an API key id no longer exists. We made it, so it will never exist again. The newest one is always
 * remembered, because the request that asked for it looks again.
 */
export function addMissing(record: CustomerRecord, wanted: string) {
  record.gone ??= new Set()
  const [oldest] = record.gone
  if (record.gone.size === MAX_MISSING_KEYS) record.gone.delete(oldest!)
  record.gone.add(wanted)
}

/** Returns one row for each customer, in order, all from one snapshot. */
export const readRecords = (db: Querier, customerIds: string[]) =>
  findRecords(db, { ids: JSON.stringify(customerIds) })

/** Decrypts a row's secrets. `issuer`: the server's own. Throws SealError if that fails. */
export function openRecord(
  keyRing: KeyRing,
  issuer: string,
  customerId: string,
  row: RecordRow,
): CustomerRecord {
  const { state, epoch, sealedDataKey } = row
  const tokensPerMinute = row.tokensPerMinute ?? undefined
  const record = { ...recordOf(customerId, state ?? 'absent'), epoch: epoch ?? 0, tokensPerMinute }
  if (sealedDataKey === null) return record
  const dataKey = openDataKey(keyRing, customerId, sealedDataKey)
  const [keys, apiKeys] = [row.keys ?? [], row.apiKeys ?? []]
  const secrets = keys.map(([use, version, alg, , sealed]) =>
    openSigningKey(keyRing, dataKey, { customerId, use, version, alg }, Buffer.from(sealed, 'base64')),
  )
  const digests = apiKeys.map(([, digest]) => Buffer.from(digest, 'base64'))
  const bytes = together([...secrets, ...digests])
  record.keys = keys.map(key => toSigningKey(keyRing, issuer, record, key, bytes.next().value!))
  record.apiKeys = apiKeys.map(key => toApiKey(key, bytes.next().value!))
  return record
}

/**
 * Copies the parts into one new allocation. A small Buffer is a view of a shared slab, which it keeps in
 * memory as a whole; a separate allocation for each part would take three times the memory of its content.
 */
function* together(parts: Uint8Array[]): Generator<Buffer, undefined> {
  const whole = Buffer.allocUnsafeSlow(parts.reduce((sum, { length }) => sum + length, 0))
  let start = 0
  for (const part of parts) {
    whole.set(part, start)
    yield whole.subarray(start, start + part.length)
    start += part.length
  }
}

const NONE: readonly never[] = []

const recordOf = (customerId: string, state: CustomerRecord['state']): CustomerRecord => ({
  customerId,
  state,
  epoch: 0,
  tokensPerMinute: undefined,
  keys: NONE,
  apiKeys: NONE,
  gone: undefined,
})

export const brokenRecord = (customerId: string) => recordOf(customerId, 'broken')

/** The context that a signing key is encrypted for. */
export interface SealedName extends KeyName {
  alg: Algorithm
}

/** Decrypts the secret, or the JWK, of a signing key. Throws SealError. */
export const openSigningKey = (keyRing: KeyRing, dataKey: SealingKey, name: SealedName, sealed: Uint8Array) =>
  open(id => (id === dataKey.id ? dataKey : undefined), sealed, signingKeyContext(keyRing, name))

export const sealSigningKey = (keyRing: KeyRing, dataKey: SealingKey, name: SealedName, bytes: Uint8Array) =>
  seal(dataKey, bytes, signingKeyContext(keyRing, name))

/** A secret of HS512. */
export const newSecret = () => randomBytes(SECRET_BYTES)

/**
 * The context contains the algorithm of an asymmetric key. Otherwise an attacker who can write to the database could
 * turn a key that holds only its public JWK into an HMAC secret that everybody knows.
 */
const signingKeyContext = (
  { installationId: installation }: KeyRing,
  { customerId: customer, use, version, alg }: SealedName,
): Context => ({ installation, customer, purpose: isAsymmetric(alg) ? `${use} ${alg}` : use, version })

let lastSerial = 0

function toSigningKey(
  keyRing: KeyRing,
  issuer: string,
  record: CustomerRecord,
  row: KeyRow,
  bytes: Buffer,
): SigningKey {
  const [use, version, alg, state] = row
  const kid = formatKid(keyRing.installationKey, { customerId: record.customerId, use, version })
  const key = { kid, use, version, header: encodeHeader({ alg, typ: TYPE[use], kid }), record }
  if (!isAsymmetric(alg)) return { ...key, alg, secret: bytes, identity: ++lastSerial }
  const pair = new KeyPair(alg, bytes)
  const own = customerIssuer(issuer, keyRing.installationKey, record.customerId)
  return { ...key, alg, pair, identity: pair.publicJwk, isNext: state === 'next', issuer: own }
}

export const TYPE = { access: 'at+jwt', refresh: 'rt+jwt' } as const

/** The protected header of the key's tokens. */
export const headerOf = ({ alg, use, kid }: SigningKey): ProtectedHeader => ({ alg, typ: TYPE[use], kid })

export const DATA_KEY_ID = 'd1'

export const dataKeyContext = (keyRing: Pick<KeyRing, 'installationId'>, customer: string) => ({
  installation: keyRing.installationId,
  customer,
  purpose: 'data key',
  version: 1,
})

export function openDataKey(keyRing: KeyRing, customerId: string, sealed: Uint8Array): SealingKey {
  const bytes = open(id => keyRing.masterKey(id), sealed, dataKeyContext(keyRing, customerId))
  return { id: DATA_KEY_ID, bytes }
}

const toApiKey = ([id, , scope, expiresAt]: ApiKeyRow, digest: Buffer): ApiKey => ({
  id,
  digest,
  scope,
  expiresAt: expiresAt ?? undefined,
})
