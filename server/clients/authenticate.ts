import type { Database } from '../../db/client.ts'
import { DatabaseError } from '../../db/errors.ts'
import {
  deleteApiKey,
  findRetriedKey,
  insertApiKey,
  listApiKeys,
  touchApiKeys,
} from '../../db/queries/api-keys.ts'
import type { AuditContext } from '../../db/queries/audit.ts'
import type { Config } from '../config/load.ts'
import {
  customerNamedBy,
  customerOfApiKeyId,
  fromTheSystem,
  matches,
  newApiKeyId,
  newCredential,
} from '../crypto/credentials.ts'
import { apiKeyOf, isMissing } from '../keys/customer-keys.ts'
import type { KeyCache } from '../keys/key-cache.ts'
import { ApiError } from '../lib/errors.ts'
import { type IdempotentRequest, OTHER_REQUEST, retryOf } from '../lib/idempotency.ts'
import type { Log } from '../lib/logger.ts'
import { type Waiting, whenReady } from '../lib/when-ready.ts'
import { WriteBuffer } from '../lib/write-buffer.ts'
import type { ChangeFeed } from '../revocation/change-feed.ts'
import type { Revoker } from '../revocation/revoker.ts'
import type { ClientCredential } from './client-credential.ts'
import type { AllowList, ResourceServers } from './resource-servers.ts'

/** A client whose credential was verified. */
export type AuthenticatedClient =
  | { kind: 'api_key'; id: string; customerId: string; scope: string }
  | ({ kind: 'resource_server'; id: string } & AllowList)

/** API keys that one customer may have. */
const MAX_API_KEYS = 100
/** `last used` is written at most this often (ms). */
const TOUCH_INTERVAL_MS = 60_000

export interface CredentialsOptions {
  db: Database
  changeFeed: ChangeFeed
  keys: KeyCache
  revoker: Revoker
  resourceServers: ResourceServers
  config: Pick<Config, 'resourceServers'>
  log: Log
}

export class ClientAuthenticator {
  readonly #options: CredentialsOptions
  /** Digests of the resource servers from the setting RESOURCE_SERVERS, by id. */
  readonly #configured: Map<string, Buffer>
  readonly #used: WriteBuffer<string>

  constructor(options: CredentialsOptions) {
    this.#options = options
    this.#configured = new Map(options.config.resourceServers.map(({ id, digest }) => [id, digest]))
    const { db, log } = options
    this.#used = new WriteBuffer({
      write: ids => touchApiKeys(db, { ids: JSON.stringify(ids) }),
      quiet: TOUCH_INTERVAL_MS,
      log,
    })
  }

  /**
   * Returns undefined if the credential is wrong. Throws `customer_disabled`, or Unavailable if the state is
   * unknown.
   */
  async authenticate(presented: ClientCredential): Promise<AuthenticatedClient | undefined> {
    const { parsed, clientId } = presented
    if (parsed?.prefix === 'assay_ak') return this.#authenticateApiKey(parsed.id, presented)
    if (parsed?.prefix === 'assay_rs') return this.#authenticateServer(parsed.id, presented)
    const digest = clientId === undefined ? undefined : this.#configured.get(clientId)
    if (digest === undefined || !presented.matches(digest)) return undefined
    return { kind: 'resource_server', id: clientId!, customers: undefined, scopes: undefined }
  }

  async #authenticateServer(
    id: string,
    presented: ClientCredential,
  ): Promise<AuthenticatedClient | undefined> {
    const { clientId } = presented
    if (clientId !== undefined && clientId !== id) return undefined
    const limits = await this.#options.resourceServers.authenticate(id, presented)
    return limits && { kind: 'resource_server', id, ...limits }
  }

  async #authenticateApiKey(
    id: string,
    presented: ClientCredential,
  ): Promise<AuthenticatedClient | undefined> {
    const { clientId } = presented
    if (clientId !== undefined && clientId !== customerNamedBy(id)) return undefined
    const caller = await whenReady(() => this.#judgeApiKey(id, presented))
    if (caller) this.#used.enqueue(id, id)
    return caller
  }

  #judgeApiKey(id: string, presented: ClientCredential): AuthenticatedClient | undefined | Waiting {
    const { changeFeed, keys } = this.#options
    const customerId = customerNamedBy(id)
    const record = keys.get(customerId)
    const key = record && apiKeyOf(record, id)
    // Only keys that aren't in memory need the check of the id's MAC. They may cost a look-up, which invented
    // ids must not cause.
    if (!key && customerOfApiKeyId(keys.keyRing.installationKey, id) === undefined) return undefined
    if (!changeFeed.hasLease()) return { wait: () => changeFeed.ensureLease() }
    if (record === undefined || (!key && !isMissing(record, id)))
      return { wait: () => keys.load(customerId, id) }
    if (key === undefined || !presented.matches(key.digest)) return undefined
    if (key.expiresAt !== undefined && changeFeed.now() >= key.expiresAt * 1000) return undefined
    if (record.state !== 'active') throw new ApiError('customer_disabled', 'this customer is disabled')
    return { kind: 'api_key', id, customerId, scope: key.scope }
  }

  /** Makes an API key, which is shown once: only its digest is stored. */
  make(customerId: string, draw = fromTheSystem) {
    const id = newApiKeyId(this.#options.keys.keyRing.installationKey, customerId, draw)
    return { id, ...newCredential('assay_ak', id, draw) }
  }

  /**
   * Creates an API key. With a `retryKey`, a repeated request returns the same key as long as it exists.
   * Throws `conflict` if the customer has the maximum number of keys, and `invalid_request` for a different
   * request with the same `retryKey`.
   */
  async create(key: NewKey, origin: AuditContext, retryKey?: string) {
    const { db, keys } = this.#options
    const retry = retryKey === undefined ? undefined : this.#retryOf(key, origin, retryKey)
    const id = newApiKeyId(keys.keyRing.installationKey, key.customerId)
    const made = newCredential('assay_ak', id, retry?.drawOf(id))
    const row = {
      ...origin,
      ...key,
      id,
      digest: made.digest,
      retryDigest: retry?.digest,
      limit: MAX_API_KEYS,
    }
    const [inserted] = await insertApiKey(db, row).catch(unlessRetried)
    if (inserted) return { ...inserted, id, text: made.text }
    const [before] = retry ? await findRetriedKey(db, { retryDigest: retry.digest }) : []
    if (before) return again(before, retry!)
    throw new ApiError('conflict', `a customer has at most ${MAX_API_KEYS} API keys; delete one first`)
  }

  /** Idempotency-Keys belong to one operator, or to a customer across its sessions. */
  #retryOf(
    { customerId, name, scope, expiresIn }: NewKey,
    { actor }: AuditContext,
    retryKey: string,
  ): IdempotentRequest {
    const asking = actor.startsWith('operator:') ? actor : 'customer'
    const seed = `api key ${customerId} ${asking} ${retryKey}`
    return retryOf(this.#options.keys.keyRing.installationKey, seed, [name, scope, expiresIn])
  }

  /** Returns the change feed's number, or undefined if there was nothing to delete. */
  async delete(customerId: string, id: string, origin: AuditContext): Promise<number | undefined> {
    const { db, revoker } = this.#options
    const [deleted] = await deleteApiKey(db, { ...origin, customerId, id })
    if (!deleted) return undefined
    revoker.invalidateCustomer(customerId, deleted.seq)
    return deleted.seq
  }

  list(customerId: string) {
    return listApiKeys(this.#options.db, { customerId })
  }

  flush(): Promise<void> {
    return this.#used.flush()
  }
}

interface NewKey {
  customerId: string
  name: string | undefined
  scope: string
  /** Seconds from now. */
  expiresIn: number | undefined
}

/** One was made under this Idempotency-Key. */
function unlessRetried(error: unknown): [] {
  if (error instanceof DatabaseError && error.constraint === 'api_keys_retry') return []
  throw error
}

function again(
  { digest, ...before }: { id: string; digest: Uint8Array; createdAt: Date; expiresAt: Date | null },
  retry: IdempotentRequest,
) {
  const { text } = newCredential('assay_ak', before.id, retry.drawOf(before.id))
  if (!matches(digest, text)) throw OTHER_REQUEST
  return { ...before, text }
}
