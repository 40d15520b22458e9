import { LRUCache } from 'lru-cache'
import type { Database } from '../../db/client.ts'
import type { AuditContext } from '../../db/queries/audit.ts'
import type { Querier } from '../../db/queries/change-feed.ts'
import {
  findRetriedService,
  findService,
  findServiceRecord,
  insertService,
  listServices as list,
  deleteService as removeService,
  rotateService,
  type ServiceRecord,
  type ServiceRotation,
  type ServiceRow,
  updateService,
} from '../../db/queries/services.ts'
import type { Config } from '../config/load.ts'
import { isServiceId, matches, newCredential, newServiceId } from '../crypto/credentials.ts'
import type { KeyRing } from '../crypto/key-ring.ts'
import { ApiError, ConflictError, Unavailable } from '../lib/errors.ts'
import { type IdempotentRequest, retryOf } from '../lib/idempotency.ts'
import type { Log } from '../lib/logger.ts'
import { type Waiting, whenReady } from '../lib/when-ready.ts'
import type { ChangeFeed } from '../revocation/change-feed.ts'
import type { RevocationList } from '../revocation/revocation-list.ts'
import type { Services } from '../services.ts'
import type { ClientCredential } from './client-credential.ts'
import type { Right } from './rights.ts'

export type { ServiceRow } from '../../db/queries/services.ts'

/** Undefined means all. */
export interface AllowList {
  customers: string[] | undefined
  scopes: string[] | undefined
}

/** The rights and limits of a service. */
export interface Permissions extends AllowList {
  may: readonly Right[]
}

/** A service that an operator created. */
export interface StoredService extends Permissions {
  name: string
}

/** A cached service. `digest` is undefined if no such service exists. */
interface Known {
  digest: Buffer | undefined
  service: StoredService
  previous: { digest: Buffer; until: number } | undefined
}

/** Maximum number of cached services. An evicted one is loaded again. */
const MAX_CACHED_SERVICES = 10_000
/** Attempts to load a record that changes while it is being loaded. */
const MAX_ATTEMPTS = 3

export interface ServiceClientsOptions {
  db: Database
  changeFeed: ChangeFeed
  keyRing: KeyRing
  revocations: RevocationList
}

/** Warns if the setting SERVICES has names of services that operators created: the audit names a service by its name alone. */
export async function warnOfRepeatedNames(db: Database, { services }: Pick<Config, 'services'>, log: Log) {
  if (services.length === 0) return
  const created = new Set((await list(db, {})).map(({ name }) => name))
  const repeated = services.map(({ name }) => name).filter(name => created.has(name))
  if (repeated.length === 0) return
  log.warn(
    { services: repeated },
    'SERVICES has names of services that operators created: each has its own credential and rights, and the audit ' +
      "can't tell them apart; rename them in SERVICES",
  )
}

/** Services created by operators: gateways and backends, each of which serves many customers. */
export class ServiceClients {
  readonly #options: ServiceClientsOptions
  readonly #known = new LRUCache<string, Known>({ max: MAX_CACHED_SERVICES })

  constructor(options: ServiceClientsOptions) {
    this.#options = options
  }

  /**
   * Returns the service, or undefined if this is not a valid credential of it. Throws Unavailable if the state is unknown.
   */
  authenticate(id: string, presented: ClientCredential): Promise<StoredService | undefined> | undefined {
    if (!isServiceId(this.#options.keyRing.installationKey, id)) return undefined
    return whenReady(() => this.#judge(id, presented))
  }

  #judge(id: string, presented: ClientCredential): StoredService | undefined | Waiting {
    const { changeFeed } = this.#options
    if (!changeFeed.hasLease()) return { wait: () => changeFeed.ensureLease() }
    const known = this.#known.get(id)
    if (known === undefined) return { wait: () => this.#load(id) }
    const { digest, previous, service } = known
    const present = digest !== undefined && presented.matches(digest)
    const before =
      previous !== undefined && changeFeed.now() < previous.until * 1000 && presented.matches(previous.digest)
    return present || before ? service : undefined
  }

  /**
   * Loads a record with the counter and the timeline, like customers' records. It is used only if no later
   * change is known.
   */
  async #load(id: string): Promise<void> {
    const { db, changeFeed, revocations } = this.#options
    for (let tried = 0; tried < MAX_ATTEMPTS; tried++) {
      const { era } = changeFeed
      const record = (await findServiceRecord(db, { id }))[0]!
      const same = era === changeFeed.era && !record.standby && record.timeline === changeFeed.timeline
      if (same && record.seq >= revocations.changedAt(id)) return void this.#known.set(id, toKnown(record))
      await changeFeed.poll()
      if (record.standby || record.timeline !== changeFeed.timeline) db.reconnect()
    }
    throw new Unavailable(`service ${id}: its record changed during every read`, 'changing')
  }

  readonly forget = {
    one: (id: string) => void this.#known.delete(id),
    all: () => this.#known.clear(),
  }
}

export const listServices = ({ db }: Services) => list(db, {})

/**
 * Creates a service. Its credential is shown once. With a `retryKey`, a repeated request returns the same service and
 * credential until the credential is rotated. Throws `conflict` if the name is taken, and `invalid_request` for a different
 * request with the same key, or after a rotation.
 */
export async function createService(
  { db, keyRing, clients }: Services,
  { name, ...permissions }: StoredService,
  origin: AuditContext,
  retryKey?: string,
) {
  // The audit names a service by its name alone.
  if (clients.isConfigured(name)) throw NAME_TAKEN
  const columns = { name, ...toColumns(permissions) }
  const seed = `service ${origin.actor} ${retryKey}`
  const retry = retryKey === undefined ? undefined : retryOf(keyRing.installationKey, seed, columns)
  const id = newServiceId(keyRing.installationKey)
  const { text, digest } = newCredential('assay_sv', id, retry?.drawOf(id))
  const row = { ...origin, ...columns, id, digest, retryDigest: retry?.digest }
  const [made] = await insertService(db, row)
  return made ? { service: made, credential: text } : again(db, retry)
}

/** Nothing was inserted: an earlier request with this Idempotency-Key created the service, or another service has its name. */
async function again(db: Querier, retry: IdempotentRequest | undefined) {
  const [before] = retry ? await findRetriedService(db, { retryDigest: retry.digest }) : []
  if (!before) throw NAME_TAKEN
  // The answer is the same as the first one, when the service had not been used.
  const { digest, ...service } = { ...before, lastUsedAt: null }
  const { text } = newCredential('assay_sv', service.id, retry!.drawOf(service.id))
  if (!matches(digest, text)) throw OTHER_REQUEST_OR_ROTATED
  return { service, credential: text }
}

const NAME_TAKEN = new ApiError('conflict', 'another service has this name; choose a different one')

/** Throws `not_found`. */
export async function changeService(
  services: Services,
  id: string,
  permissions: Permissions,
  origin: AuditContext,
) {
  const [changed] = await updateService(services.db, { ...origin, id, ...toColumns(permissions) })
  return applyChange(services, id, changed)
}

/**
 * Rotates the credential. At most two are valid at a time, and the caller says which one ends. Throws
 * `not_found`, `conflict`.
 */
export async function rotateCredential(
  services: Services,
  id: string,
  rotation: ServiceRotation,
  origin: AuditContext,
) {
  const { text, digest } = newCredential('assay_sv', id)
  const [rotated] = await rotateService(services.db, { ...origin, ...rotation, id, digest })
  if (!rotated) await throwNotRotated(services, id)
  return { ...applyChange(services, id, rotated), credential: text }
}

/** Throws `conflict` if the service exists, which is why its credential could not be rotated. */
async function throwNotRotated({ db }: Services, id: string) {
  const [service] = await findService(db, { id })
  if (service?.previousUntil) throw overlapLasts(service.previousUntil)
  if (service) throw NO_OVERLAP
}

/** Returns the change feed's number, or undefined if there was no such service. */
export async function deleteService(services: Services, id: string, origin: AuditContext) {
  const { db, revoker } = services
  const [deleted] = await removeService(db, { ...origin, id })
  if (deleted) revoker.invalidateCustomer(id, deleted.seq)
  return deleted?.seq
}

function applyChange({ revoker }: Services, id: string, row: (ServiceRow & { seq: number }) | undefined) {
  if (!row) throw new ApiError('not_found', 'no such service; check the id')
  const { seq, ...service } = row
  revoker.invalidateCustomer(id, seq)
  return { service, seq }
}

const NO_OVERLAP = new ApiError(
  'conflict',
  'there is no valid previous credential; rotate without end: current',
)

const overlapLasts = (until: Date) => {
  const previous_until = until.toISOString()
  return new ConflictError(
    `the previous credential is valid until ${previous_until}; rotate after that, or send which one ends now: end: previous, end: current (the newest one, if nobody has received it) or overlap: 0 (both)`,
    { previous_until },
  )
}

const OTHER_REQUEST_OR_ROTATED = new ApiError(
  'invalid_request',
  'this Idempotency-Key was used with another request, or the credential has been rotated since; use a new key',
)

const listIn = (json: string | null): string[] | undefined => (json === null ? undefined : JSON.parse(json))

function toKnown({ digest, previousDigest, previousUntil, ...row }: ServiceRecord): Known {
  const previous = previousDigest && previousUntil !== null
  return {
    digest: digest === null ? undefined : Buffer.from(digest),
    previous: previous ? { digest: Buffer.from(previousDigest), until: previousUntil } : undefined,
    service: {
      name: row.name ?? '',
      may: (listIn(row.may) ?? []) as Right[],
      customers: listIn(row.customers),
      scopes: listIn(row.scopes),
    },
  }
}

const toColumns = ({ may, customers, scopes }: Permissions) => ({
  may: JSON.stringify(may),
  customers: customers && JSON.stringify(customers),
  scopes: scopes && JSON.stringify(scopes),
})
