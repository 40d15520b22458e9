import type { Database } from '../../db/client.ts'
import { touchApiKeys } from '../../db/queries/api-keys.ts'
import { touchServices } from '../../db/queries/services.ts'
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
import type { Permissions, ServiceClients } from './service-clients.ts'

/** A client whose credential was verified. */
export type AuthenticatedClient =
  | { kind: 'api_key'; id: string; customerId: string; scope: string }
  | AuthenticatedService

export type AuthenticatedService = {
  kind: 'service'
  /** The `client_id`. For a service from the setting SERVICES it is the service's name. */
  id: string
  name: string
} & Permissions

/** `last used` is written at most this often (ms). */
const TOUCH_INTERVAL_MS = 60_000

export interface CredentialsOptions {
  db: Database
  changeFeed: ChangeFeed
  keys: KeyCache
  serviceClients: ServiceClients
  config: Pick<Config, 'services'>
  log: Log
}

export class ClientAuthenticator {
  readonly #options: CredentialsOptions
  /** The services from the setting SERVICES, by name. */
  #configured = new Map<string, Config['services'][number]>()
  readonly #usedKeys: WriteBuffer<string>
  readonly #usedServices: WriteBuffer<string>

  constructor(options: CredentialsOptions) {
    this.#options = options
    this.replaceConfigured(options.config)
    const { db, log } = options
    const usedOf = (touch: typeof touchApiKeys) =>
      new WriteBuffer<string>({
        write: ids => touch(db, { ids: JSON.stringify(ids) }),
        quiet: TOUCH_INTERVAL_MS,
        log,
      })
    this.#usedKeys = usedOf(touchApiKeys)
    this.#usedServices = usedOf(touchServices)
  }

  /** Secrets that are not among these are refused from now on. */
  replaceConfigured({ services }: Pick<Config, 'services'>) {
    this.#configured = new Map(services.map(service => [service.name, service]))
  }

  /** Whether the setting SERVICES has a service of this name. */
  isConfigured(name: string): boolean {
    return this.#configured.has(name)
  }

  /**
   * Returns undefined if the credential is wrong. Throws `customer_disabled`, or Unavailable if the state is
   * unknown.
   */
  async authenticate(presented: ClientCredential): Promise<AuthenticatedClient | undefined> {
    const { parsed } = presented
    if (parsed?.prefix === 'assay_ak') return this.#authenticateApiKey(parsed.id, presented)
    return this.authenticateService(presented)
  }

  /** Returns undefined if this is no valid credential of a service. Throws Unavailable if the state is unknown. */
  async authenticateService(presented: ClientCredential): Promise<AuthenticatedService | undefined> {
    const { parsed, clientId } = presented
    if (parsed === undefined) return this.#authenticateConfigured(presented)
    const { prefix, id } = parsed
    if (prefix !== 'assay_sv' || (clientId !== undefined && clientId !== id)) return undefined
    const service = await this.#options.serviceClients.authenticate(id, presented)
    if (!service) return undefined
    this.#usedServices.enqueue(id, id)
    return { kind: 'service', id, ...service }
  }

  #authenticateConfigured(presented: ClientCredential): AuthenticatedService | undefined {
    const { clientId } = presented
    const configured = clientId === undefined ? undefined : this.#configured.get(clientId)
    if (!configured || !presented.matches(configured.digest)) return undefined
    const { name, may } = configured
    return { kind: 'service', id: name, name, may, customers: undefined, scopes: undefined }
  }

  async #authenticateApiKey(
    id: string,
    presented: ClientCredential,
  ): Promise<AuthenticatedClient | undefined> {
    const { clientId } = presented
    if (clientId !== undefined && clientId !== customerNamedBy(id)) return undefined
    const caller = await whenReady(() => this.#judgeApiKey(id, presented))
    if (caller) this.#usedKeys.enqueue(id, id)
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
    if (record.state !== 'active')
      throw new ApiError('customer_disabled', 'this customer is disabled; ask the operator to enable it')
    return { kind: 'api_key', id, customerId, scope: key.scope }
  }

  async flush(): Promise<void> {
    await Promise.all([this.#usedKeys.flush(), this.#usedServices.flush()])
  }

  async stop(): Promise<void> {
    await Promise.all([this.#usedKeys.stop(), this.#usedServices.stop()])
  }
}
