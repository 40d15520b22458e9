import { timingSafeEqual } from 'node:crypto'
import type { RecordRow } from '../../db/queries/customer-keys.ts'
import type { Redis } from '../../db/redis.ts'
import type { KeyRing } from '../crypto/key-ring.ts'
import { installationMac } from '../crypto/mac.ts'
import type { RedisNames } from '../lib/redis-names.ts'
import type { ChangeFeed } from '../revocation/change-feed.ts'

/**
 * Older entries are ignored (ms). Every replica knows all customer changes of the last 3 hours
 * (RECORD_CHANGE_KEPT in db/queries/change-feed.ts), so for an entry from the last hour it knows whether the
 * customer changed since.
 */
const MAX_AGE_MS = 3_600_000
/**
 * How far ahead an entry may be (ms): our estimate of the database's clock is off by up to a poll's round
 * trip.
 */
const CLOCK_SKEW_MS = 60_000
/** The maximum length of an entry in characters. A larger record is not shared. */
const MAX_ENTRY_BYTES = 65_536
/** The length of 32 bytes in base32. */
const MAC_BYTES = 52

/**
 * `refused`: not current, or without the wanted key. `forged`: not written by this installation under this name, or
 * damaged.
 */
export const OUTCOMES = ['used', 'missing', 'refused', 'forged', 'outdated', 'failed'] as const
export type Outcome = (typeof OUTCOMES)[number]

export interface RedisKeyCacheOptions {
  redis: Pick<Redis, 'get' | 'set' | 'delete'>
  keyRing: Pick<KeyRing, 'installationKey'>
  names: Pick<RedisNames, 'record'>
  changeFeed: Pick<ChangeFeed, 'now'>
}

/**
 * Shares customer records between replicas through Redis, as they came from the database: secrets stay encrypted, and an API key
 * is only the SHA-256 of 256 random bits. A MAC shows that an entry is a row that one of our replicas read from the same running
 * database; KeyCache checks whether it is still current. So it does no harm if a slow replica or an attacker overwrites a newer
 * entry with an older one.
 */
export class RedisKeyCache {
  readonly #options: RedisKeyCacheOptions
  readonly #counts = new Map<Outcome, number>(OUTCOMES.map(outcome => [outcome, 0]))

  constructor(options: RedisKeyCacheOptions) {
    this.#options = options
  }

  get counts(): ReadonlyMap<Outcome, number> {
    return this.#counts
  }

  count(outcome: Outcome) {
    this.#counts.set(outcome, this.#counts.get(outcome)! + 1)
  }

  /** Undefined if there is no genuine, recent entry. The caller must check that the row is current. */
  async find(customerId: string): Promise<RecordRow | undefined> {
    const found = await this.#look(customerId)
    if (typeof found !== 'string') return found
    this.count(found)
    return undefined
  }

  async #look(customerId: string): Promise<RecordRow | Outcome> {
    const { redis, names, changeFeed } = this.#options
    const name = names.record(customerId)
    try {
      // One character more than an entry may have: a larger entry is cut off, so its MAC doesn't match.
      const entry = await redis.get(name, MAX_ENTRY_BYTES + 1)
      if (entry === undefined) return 'missing'
      const row = this.#read(name, entry)
      if (row === undefined) return 'forged'
      const age = changeFeed.now() - row.readAt
      return age <= MAX_AGE_MS && age >= -CLOCK_SKEW_MS ? row : 'outdated'
    } catch {
      return 'failed' // The driver logs it.
    }
  }

  #read(name: string, entry: string): RecordRow | undefined {
    const [mac, body] = [Buffer.from(entry.slice(0, MAC_BYTES)), entry.slice(MAC_BYTES)]
    const ours = Buffer.from(this.#mac(name, body))
    if (mac.length !== ours.length || !timingSafeEqual(mac, ours)) return undefined
    const row = JSON.parse(body) // `put` wrote it in this format; a new format needs a new MAC purpose.
    return { ...row, sealedDataKey: Buffer.from(row.sealedDataKey, 'base64') }
  }

  /** Writes in the background. An absent customer is not cached: it may be about to sign up. */
  put(customerId: string, row: RecordRow) {
    if (row.sealedDataKey === null) return
    const name = this.#options.names.record(customerId, row.timeline)
    const body = JSON.stringify({ ...row, sealedDataKey: Buffer.from(row.sealedDataKey).toString('base64') })
    const entry = this.#mac(name, body) + body
    if (entry.length > MAX_ENTRY_BYTES) return
    this.#options.redis.set(name, entry, MAX_AGE_MS).catch(() => {}) // The driver logs it.
  }

  /**
   * Without Redis, after a failover, or if a replica is just about to put it again, the entry expires within MAX_AGE_MS.
   */
  async delete(customerId: string) {
    const { redis, names } = this.#options
    await redis.delete(names.record(customerId)).catch(() => {}) // The driver logs it.
  }

  // The separator is unambiguous because a name has no space.
  #mac(name: string, body: string) {
    return installationMac(this.#options.keyRing.installationKey, 'cached record', `${name} ${body}`, 32)
  }
}
