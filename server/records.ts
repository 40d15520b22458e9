import { findRecord, type RecordRow } from '../db/keys.ts'
import type { Querier } from '../db/revocations.ts'
import type { Algorithm } from './crypto/jwt.ts'
import { encodeHeader } from './crypto/jwt.ts'
import { formatKid, type Use } from './crypto/kid.ts'
import { open, type SealingKey } from './crypto/seal.ts'

export interface SigningKey {
  readonly kid: string
  readonly use: Use
  readonly version: number
  readonly alg: Algorithm
  readonly secret: Buffer
  /** The one protected header that its tokens have, encoded. */
  readonly header: string
  readonly record: CustomerRecord
}

export interface ApiKey {
  readonly id: string
  readonly digest: Buffer
  /** RFC 6749 3.3; '*' is any. */
  readonly scope: string
  /** NumericDate. */
  readonly expiresAt: number | undefined
}

/** All that verifying a customer's tokens and credentials takes, as it was at one number of the bus. */
export interface CustomerRecord {
  readonly customerId: string
  /** `broken`: its row doesn't open, which concerns nobody else. */
  readonly state: 'active' | 'disabled' | 'absent' | 'broken'
  readonly epoch: number
  /** By kid. */
  readonly keys: Map<string, SigningKey>
  readonly apiKeys: Map<string, ApiKey>
  /** Kids and API key ids that we once made and that are no more. */
  readonly gone: Set<string>
}

/** What opens sealed records: the installation's id and key, and the master ring. */
export interface Vault {
  readonly installationId: string
  readonly installationKey: Buffer
  masterKey(id: string): SealingKey | undefined
  /** Seals new data keys. */
  readonly current: SealingKey
}

export const readRecord = async (db: Querier, customerId: string) =>
  (await findRecord(db, { customerId }))[0]!

/** Opens what a row seals. Throws SealError when it doesn't open. */
export function openRecord(vault: Vault, customerId: string, row: RecordRow): CustomerRecord {
  const record: CustomerRecord = {
    customerId,
    state: row.state ?? 'absent',
    epoch: row.epoch ?? 0,
    keys: new Map(),
    apiKeys: new Map(row.apiKeys?.map(key => [key[0], toApiKey(key)])),
    gone: new Set(),
  }
  if (row.sealedDataKey === null) return record
  const dataKey = openDataKey(vault, customerId, row.sealedDataKey)
  for (const key of row.keys ?? []) {
    const opened = openSigningKey(vault, record, dataKey, key)
    record.keys.set(opened.kid, opened)
  }
  return record
}

export const brokenRecord = (customerId: string): CustomerRecord => ({
  customerId,
  state: 'broken',
  epoch: 0,
  keys: new Map(),
  apiKeys: new Map(),
  gone: new Set(),
})

type KeyRow = NonNullable<RecordRow['keys']>[number]
type ApiKeyRow = NonNullable<RecordRow['apiKeys']>[number]

function openSigningKey(vault: Vault, record: CustomerRecord, dataKey: SealingKey, row: KeyRow): SigningKey {
  const [use, version, alg, , sealed] = row
  const { customerId } = record
  const context = { installation: vault.installationId, customer: customerId, purpose: use, version }
  const secret = open(id => (id === dataKey.id ? dataKey : undefined), Buffer.from(sealed, 'base64'), context)
  return makeSigningKey(vault, record, { use, version, alg, secret })
}

export function makeSigningKey(
  vault: Pick<Vault, 'installationKey'>,
  record: CustomerRecord,
  key: Pick<SigningKey, 'use' | 'version' | 'alg' | 'secret'>,
): SigningKey {
  const kid = formatKid(vault.installationKey, { ...key, customerId: record.customerId })
  const header = encodeHeader({ alg: key.alg, typ: TYPE[key.use], kid })
  return { ...key, kid, header, record }
}

export const TYPE = { access: 'at+jwt', refresh: 'rt+jwt' } as const

export const DATA_KEY_ID = 'd1'

export const dataKeyContext = (vault: Pick<Vault, 'installationId'>, customer: string) => ({
  installation: vault.installationId,
  customer,
  purpose: 'data key',
  version: 1,
})

export function openDataKey(vault: Vault, customerId: string, sealed: Uint8Array): SealingKey {
  const bytes = open(id => vault.masterKey(id), sealed, dataKeyContext(vault, customerId))
  return { id: DATA_KEY_ID, bytes }
}

const toApiKey = ([id, digest, scope, expiresAt]: ApiKeyRow): ApiKey => ({
  id,
  digest: Buffer.from(digest, 'base64'),
  scope,
  expiresAt: expiresAt ?? undefined,
})
