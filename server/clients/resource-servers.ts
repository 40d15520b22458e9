import { LRUCache } from 'lru-cache'
import type { Database } from '../../db/client.ts'
import type { Origin } from '../../db/queries/audit.ts'
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
import type { Vault } from '../keys/customer-keys.ts'
import { Conflict, OAuthError, Unavailable } from '../lib/errors.ts'
import { type Retry, retryOf } from '../lib/idempotency.ts'
import { settle, type Waiting } from '../lib/when-ready.ts'
import type { Bus } from '../revocation/change-feed.ts'
import type { Revocations } from '../revocation/revocation-list.ts'
import type { Revoker } from '../revocation/revoker.ts'

export type { ServerRow } from '../../db/queries/resource-servers.ts'

/** Undefined: all. */
export interface Limited {
  customers: string[] | undefined
  scopes: string[] | undefined
}

/** As it is known here. Without a digest there is none. */
interface Known extends Limited {
  digest: Buffer | undefined
  previous: { digest: Buffer; until: number } | undefined
}

/** Resource servers that are kept; whichever falls out is read again. */
const MOST = 10_000
/** A load that loses against a change is repeated this often. */
const TRIES = 3

export interface ServersOptions {
  db: Database
  bus: Bus
  vault: Vault
  revocations: Revocations
  revoker: Revoker
}

/** Gateways and backends that ask about tokens, as operators made them. */
export class Servers {
  readonly #options: ServersOptions
  readonly #known = new LRUCache<string, Known>({ max: MOST })

  constructor(options: ServersOptions) {
    this.#options = options
  }

  /** Its limits; undefined: this is not its credential, or no more. Throws Unavailable when that can't be known. */
  authenticate(id: string, secret: string): Promise<Limited | undefined> | undefined {
    if (!isServerId(this.#options.vault.installationKey, id)) return undefined
    return settle(() => this.#judge(id, secret))
  }

  #judge(id: string, secret: string): Limited | undefined | Waiting {
    const { bus } = this.#options
    if (!bus.usable()) return { wait: () => bus.fresh() }
    const known = this.#known.get(id)
    if (known === undefined) return { wait: () => this.#load(id) }
    const { digest, previous, customers, scopes } = known
    const present = digest !== undefined && matches(digest, secret)
    const before =
      previous !== undefined && bus.now() < previous.until * 1000 && matches(previous.digest, secret)
    return present || before ? { customers, scopes } : undefined
  }

  /** One rule, as for customers: read with the counter and the timeline, used only if no later change is known. */
  async #load(id: string): Promise<void> {
    const { db, bus, revocations } = this.#options
    for (let tried = 0; tried < TRIES; tried++) {
      const { era } = bus
      const record = (await findServerRecord(db, { id }))[0]!
      const same = era === bus.era && !record.standby && record.timeline === bus.timeline
      if (same && record.seq >= revocations.changedAt(id)) return void this.#known.set(id, toKnown(record))
      await bus.poll()
      if (record.standby || record.timeline !== bus.timeline) db.renew()
    }
    throw new Unavailable(`resource server ${id}: its record changed at every read`, 'changing')
  }

  readonly forget = {
    one: (id: string) => void this.#known.delete(id),
    all: () => this.#known.clear(),
  }

  list(): Promise<ServerRow[]> {
    return listServers(this.#options.db, {})
  }

  /**
   * Its credential is shown once. With a `retryKey` the same request is answered again with the same server and credential,
   * until the credential is rotated. Throws `invalid_request` after that, or for another request under the key.
   */
  async create(name: string | undefined, limits: Limited, origin: Origin, retryKey?: string) {
    const { db, vault } = this.#options
    const columns = { name, ...toColumns(limits) }
    const seed = `server ${origin.actor} ${retryKey}`
    const retry = retryKey === undefined ? undefined : retryOf(vault.installationKey, seed, columns)
    const id = newServerId(vault.installationKey)
    const { text, digest } = newCredential('assay_rs', id, retry?.drawOf(id))
    const row = { ...origin, ...columns, id, digest, retryDigest: retry?.digest }
    const [made] = await insertServer(db, row)
    return made ? { server: made, credential: text } : this.#again(retry!)
  }

  async #again(retry: Retry) {
    const [before] = await findRetriedServer(this.#options.db, { retryDigest: retry.digest })
    if (!before)
      throw new Unavailable('servers: what an Idempotency-Key made was deleted meanwhile', 'changing')
    const { digest, ...server } = before
    const { text } = newCredential('assay_rs', server.id, retry.drawOf(server.id))
    if (!matches(digest, text)) throw OTHER_REQUEST_OR_ROTATED
    return { server, credential: text }
  }

  /** Throws `not_found`. */
  async change(id: string, name: string | undefined, limits: Limited, origin: Origin) {
    const [changed] = await updateServer(this.#options.db, { ...origin, id, name, ...toColumns(limits) })
    return this.#changed(id, changed)
  }

  /** No more than two are good at once: which one ends is said, never guessed. Throws `not_found`, `conflict`. */
  async rotate(id: string, rotation: ServerRotation, origin: Origin) {
    const { text, digest } = newCredential('assay_rs', id)
    const [rotated] = await rotateServer(this.#options.db, { ...origin, ...rotation, id, digest })
    if (!rotated) await this.#notRotated(id)
    return { ...this.#changed(id, rotated), credential: text }
  }

  /** Throws `conflict`, if it is there. */
  async #notRotated(id: string) {
    const [server] = await findServer(this.#options.db, { id })
    if (server?.previousUntil) throw overlapLasts(server.previousUntil)
    if (server) throw NO_OVERLAP
  }

  /** Answers the bus's number, or undefined when there was none. */
  async delete(id: string, origin: Origin): Promise<number | undefined> {
    const [deleted] = await deleteServer(this.#options.db, { ...origin, id })
    if (deleted) this.#options.revoker.forgetCustomer(id, deleted.seq)
    return deleted?.seq
  }

  #changed(id: string, row: (ServerRow & { seq: number }) | undefined) {
    if (!row) throw new OAuthError('not_found', 'no such resource server')
    const { seq, ...server } = row
    this.#options.revoker.forgetCustomer(id, seq)
    return { server, seq }
  }
}

const NO_OVERLAP = new OAuthError('conflict', 'no older credential is good any more; rotate without end')

const overlapLasts = (until: Date) => {
  const previous_until = until.toISOString()
  return new Conflict(
    `the one before is good until ${previous_until}; rotate after that, or say which ends now: end: previous, end: current (nobody got it), overlap: 0 (both)`,
    { previous_until },
  )
}

const OTHER_REQUEST_OR_ROTATED = new OAuthError(
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

const toColumns = ({ customers, scopes }: Limited) => ({
  customers: customers && JSON.stringify(customers),
  scopes: scopes && JSON.stringify(scopes),
})
