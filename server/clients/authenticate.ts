import type { Database } from '../../db/client.ts'
import { touchApiKeys } from '../../db/queries/api-keys.ts'
import type { Config } from '../config/load.ts'
import { customerNamedBy, customerOfApiKeyId } from '../crypto/credentials.ts'
import { apiKeyOf, isMissing } from '../keys/customer-keys.ts'
import type { KeyCache } from '../keys/key-cache.ts'
import { ApiError } from '../lib/errors.ts'
import type { Log } from '../lib/logger.ts'
import { type Waiting, whenReady } from '../lib/when-ready.ts'
import { WriteBuffer } from '../lib/write-buffer.ts'
import type { ChangeFeed } from '../revocation/change-feed.ts'
import type { ClientCredential } from './client-credential.ts'
import type { AllowList, ResourceServers } from './resource-servers.ts'

/** A client whose credential was verified. */
export type AuthenticatedClient =
  | { kind: 'api_key'; id: string; customerId: string; scope: string }
  | ({ kind: 'resource_server'; id: string } & AllowList)

/** `last used` is written at most this often (ms). */
const TOUCH_INTERVAL_MS = 60_000

export interface CredentialsOptions {
  db: Database
  changeFeed: ChangeFeed
  keys: KeyCache
  resourceServers: ResourceServers
  config: Pick<Config, 'resourceServers'>
  log: Log
}

export class ClientAuthenticator {
  readonly #options: CredentialsOptions
  /** Digests of the resource servers from the setting RESOURCE_SERVERS, by id. */
  #configured = new Map<string, Buffer>()
  readonly #used: WriteBuffer<string>

  constructor(options: CredentialsOptions) {
    this.#options = options
    this.replaceConfigured(options.config)
    const { db, log } = options
    this.#used = new WriteBuffer({
      write: ids => touchApiKeys(db, { ids: JSON.stringify(ids) }),
      quiet: TOUCH_INTERVAL_MS,
      log,
    })
  }

  /** Secrets that are not among these are refused from now on. */
  replaceConfigured({ resourceServers }: Pick<Config, 'resourceServers'>) {
    this.#configured = new Map(resourceServers.map(({ id, digest }) => [id, digest]))
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

  flush(): Promise<void> {
    return this.#used.flush()
  }

  stop(): Promise<void> {
    return this.#used.stop()
  }
}
