import { LRUCache } from 'lru-cache'
import type { Database } from '../../db/client.ts'
import type { AuditContext } from '../../db/queries/audit.ts'
import type { Querier } from '../../db/queries/change-feed.ts'
import {
  deleteServer,
  findRetriedServer,
  findServer,
  findServerRecord,
  insertServer,
  listServers,
  rotateServer,
  type ServerRecord,
  type ServerRotation,
  type ServerRow,
  updateServer,
} from '../../db/queries/resource-servers.ts'
import { isServerId, matches, newCredential, newServerId } from '../crypto/credentials.ts'
import type { KeyRing } from '../crypto/key-ring.ts'
import { ApiError, ConflictError, Unavailable } from '../lib/errors.ts'
import { type IdempotentRequest, retryOf } from '../lib/idempotency.ts'
import { type Waiting, whenReady } from '../lib/when-ready.ts'
import type { ChangeFeed } from '../revocation/change-feed.ts'
import type { RevocationList } from '../revocation/revocation-list.ts'
import type { Services } from '../services.ts'
import type { ClientCredential } from './client-credential.ts'

export type { ServerRow } from '../../db/queries/resource-servers.ts'

/** Undefined means all. */
export interface AllowList {
  customers: string[] | undefined
  scopes: string[] | undefined
}

interface ServerDescription extends AllowList {
  name: string | undefined
}

/** A cached resource server. `digest` is undefined if no such server exists. */
interface Known extends AllowList {
  digest: Buffer | undefined
  previous: { digest: Buffer; until: number } | undefined
}

/** Maximum number of cached resource servers. An evicted one is loaded again. */
const MAX_CACHED_SERVERS = 10_000
/** Attempts to load a record that changes while it is being loaded. */
const MAX_ATTEMPTS = 3

export interface ServersOptions {
  db: Database
  changeFeed: ChangeFeed
  keyRing: KeyRing
  revocations: RevocationList
}

/** Resource servers created by operators: gateways and backends that ask about tokens. */
export class ResourceServers {
  readonly #options: ServersOptions
  readonly #known = new LRUCache<string, Known>({ max: MAX_CACHED_SERVERS })

  constructor(options: ServersOptions) {
    this.#options = options
  }

  /**
   * Returns the server's limits, or undefined if this is not a valid credential of it. Throws Unavailable if
   * the state is unknown.
   */
  authenticate(id: string, presented: ClientCredential): Promise<AllowList | undefined> | undefined {
    if (!isServerId(this.#options.keyRing.installationKey, id)) return undefined
    return whenReady(() => this.#judge(id, presented))
  }

  #judge(id: string, presented: ClientCredential): AllowList | undefined | Waiting {
    const { changeFeed } = this.#options
    if (!changeFeed.hasLease()) return { wait: () => changeFeed.ensureLease() }
    const known = this.#known.get(id)
    if (known === undefined) return { wait: () => this.#load(id) }
    const { digest, previous, customers, scopes } = known
    const present = digest !== undefined && presented.matches(digest)
    const before =
      previous !== undefined && changeFeed.now() < previous.until * 1000 && presented.matches(previous.digest)
    return present || before ? { customers, scopes } : undefined
  }

  /**
   * Loads a record with the counter and the timeline, like customers' records. It is used only if no later
   * change is known.
   */
  async #load(id: string): Promise<void> {
    const { db, changeFeed, revocations } = this.#options
    for (let tried = 0; tried < MAX_ATTEMPTS; tried++) {
      const { era } = changeFeed
      const record = (await findServerRecord(db, { id }))[0]!
      const same = era === changeFeed.era && !record.standby && record.timeline === changeFeed.timeline
      if (same && record.seq >= revocations.changedAt(id)) return void this.#known.set(id, toKnown(record))
      await changeFeed.poll()
      if (record.standby || record.timeline !== changeFeed.timeline) db.reconnect()
    }
    throw new Unavailable(`resource server ${id}: its record changed at every read`, 'changing')
  }

  readonly forget = {
    one: (id: string) => void this.#known.delete(id),
    all: () => this.#known.clear(),
  }
}

export const listResourceServers = ({ db }: Services) => listServers(db, {})

/**
 * Creates a server. Its credential is shown once. With a `retryKey`, a repeated request returns the same
 * server and credential until the credential is rotated. Throws `invalid_request` after that, or for a
 * different request with the same key.
 */
export async function createResourceServer(
  { db, keyRing }: Services,
  server: ServerDescription,
  origin: AuditContext,
  retryKey?: string,
) {
  const columns = toColumns(server)
  const seed = `server ${origin.actor} ${retryKey}`
  const retry = retryKey === undefined ? undefined : retryOf(keyRing.installationKey, seed, columns)
  const id = newServerId(keyRing.installationKey)
  const { text, digest } = newCredential('assay_rs', id, retry?.drawOf(id))
  const row = { ...origin, ...columns, id, digest, retryDigest: retry?.digest }
  const [made] = await insertServer(db, row)
  return made ? { server: made, credential: text } : again(db, retry!)
}

async function again(db: Querier, retry: IdempotentRequest) {
  const [before] = await findRetriedServer(db, { retryDigest: retry.digest })
  if (!before)
    throw new Unavailable('servers: what an Idempotency-Key made was deleted meanwhile', 'changing')
  const { digest, ...server } = before
  const { text } = newCredential('assay_rs', server.id, retry.drawOf(server.id))
  if (!matches(digest, text)) throw OTHER_REQUEST_OR_ROTATED
  return { server, credential: text }
}

/** Throws `not_found`. */
export async function changeResourceServer(
  services: Services,
  id: string,
  server: ServerDescription,
  origin: AuditContext,
) {
  const [changed] = await updateServer(services.db, { ...origin, id, ...toColumns(server) })
  return applyChange(services, id, changed)
}

/**
 * Rotates the credential. At most two are valid at a time, and the caller says which one ends. Throws
 * `not_found`, `conflict`.
 */
export async function rotateCredential(
  services: Services,
  id: string,
  rotation: ServerRotation,
  origin: AuditContext,
) {
  const { text, digest } = newCredential('assay_rs', id)
  const [rotated] = await rotateServer(services.db, { ...origin, ...rotation, id, digest })
  if (!rotated) await throwNotRotated(services, id)
  return { ...applyChange(services, id, rotated), credential: text }
}

/** Throws `conflict` if the server exists, which is why its credential could not be rotated. */
async function throwNotRotated({ db }: Services, id: string) {
  const [server] = await findServer(db, { id })
  if (server?.previousUntil) throw overlapLasts(server.previousUntil)
  if (server) throw NO_OVERLAP
}

/** Returns the change feed's number, or undefined if there was no such server. */
export async function deleteResourceServer(services: Services, id: string, origin: AuditContext) {
  const { db, revoker } = services
  const [deleted] = await deleteServer(db, { ...origin, id })
  if (deleted) revoker.invalidateCustomer(id, deleted.seq)
  return deleted?.seq
}

function applyChange({ revoker }: Services, id: string, row: (ServerRow & { seq: number }) | undefined) {
  if (!row) throw new ApiError('not_found', 'no such resource server')
  const { seq, ...server } = row
  revoker.invalidateCustomer(id, seq)
  return { server, seq }
}

const NO_OVERLAP = new ApiError(
  'conflict',
  'no previous credential is valid any more; rotate without end: current',
)

const overlapLasts = (until: Date) => {
  const previous_until = until.toISOString()
  return new ConflictError(
    `the previous credential is valid until ${previous_until}; rotate after that, or say which one ends now: end: previous, end: current (the newest, if nobody received it) or overlap: 0 (both)`,
    { previous_until },
  )
}

const OTHER_REQUEST_OR_ROTATED = new ApiError(
  'invalid_request',
  'this Idempotency-Key was used with another request, or the credential was rotated since; use a new one',
)

const listIn = (json: string | null): string[] | undefined => (json === null ? undefined : JSON.parse(json))

function toKnown({ digest, previousDigest, previousUntil, customers, scopes }: ServerRecord): Known {
  const previous = previousDigest && previousUntil !== null
  return {
    digest: digest === null ? undefined : Buffer.from(digest),
    previous: previous ? { digest: Buffer.from(previousDigest), until: previousUntil } : undefined,
    customers: listIn(customers),
    scopes: listIn(scopes),
  }
}

const toColumns = ({ name, customers, scopes }: ServerDescription) => ({
  name,
  customers: customers && JSON.stringify(customers),
  scopes: scopes && JSON.stringify(scopes),
})
