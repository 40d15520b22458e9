import { timingSafeEqual } from 'node:crypto'
import type { RecordRow } from '../../db/queries/customer-keys.ts'
import type { Redis } from '../../db/redis.ts'
import type { KeyRing } from '../crypto/key-ring.ts'
import { installationMac } from '../crypto/mac.ts'
import type { ChangeFeed } from '../revocation/change-feed.ts'

/**
 * Older entries are not believed (ms). Every replica knows the changes of customers of the last 24 hours (LONGEST_TOKEN in
 * db/queries/change-feed.ts), so that of an entry within the hour it knows whether one came after it.
 */
const MAX_AGE_MS = 3_600_000
/** How far ahead an entry may be: what is known here of the database's clock may be wrong by a poll's way (ms). */
const CLOCK_SKEW_MS = 60_000
/** Characters of an entry; a record that is larger is not shared. */
const MAX_ENTRY_BYTES = 65_536
/** Of 32 bytes in base32. */
const MAC_BYTES = 52

/** `refused`: by the rule for records. `forged`: not made by this installation for this customer, or damaged. */
export const OUTCOMES = ['used', 'missing', 'refused', 'forged', 'outdated', 'failed'] as const
export type Outcome = (typeof OUTCOMES)[number]

export interface RedisKeyCacheOptions {
  redis: Pick<Redis, 'get' | 'set'>
  keyRing: Pick<KeyRing, 'installationId' | 'installationKey'>
  changeFeed: Pick<ChangeFeed, 'now'>
}

/**
 * Customers' records where the other replicas find them, as the database gave them: secrets sealed, of API keys only the
 * SHA-256 of 256 random bits. An entry is one of our own answers from the database, or it is nothing (MAC); whether that
 * answer may still be used, the rule for records says. So it doesn't matter who puts an older one over a newer one: a
 * replica that was slow, or someone who means ill.
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

  /** Undefined: none that is ours and young enough. Whether it may be used is still to be judged. */
  async find(customerId: string): Promise<RecordRow | undefined> {
    const found = await this.#look(customerId)
    if (typeof found !== 'string') return found
    this.count(found)
    return undefined
  }

  async #look(customerId: string): Promise<RecordRow | Outcome> {
    const { redis, changeFeed } = this.#options
    try {
      // One more than an entry may have: a larger one is cut, and so isn't ours.
      const entry = await redis.get(this.#name(customerId), MAX_ENTRY_BYTES + 1)
      if (entry === undefined) return 'missing'
      const row = this.#read(customerId, entry)
      if (row === undefined) return 'forged'
      const age = changeFeed.now() - row.readAt
      return age <= MAX_AGE_MS && age >= -CLOCK_SKEW_MS ? row : 'outdated'
    } catch {
      return 'failed' // Told by the driver.
    }
  }

  #read(customerId: string, entry: string): RecordRow | undefined {
    const [mac, body] = [Buffer.from(entry.slice(0, MAC_BYTES)), entry.slice(MAC_BYTES)]
    const ours = Buffer.from(this.#mac(customerId, body))
    if (mac.length !== ours.length || !timingSafeEqual(mac, ours)) return undefined
    const row = JSON.parse(body) // Ours, and so in the form that `put` gives it; another form needs another purpose.
    return { ...row, sealedDataKey: Buffer.from(row.sealedDataKey, 'base64') }
  }

  /** Nobody waits for it. A customer that isn't there is not an entry: it may be about to sign up. */
  put(customerId: string, row: RecordRow) {
    if (row.sealedDataKey === null) return
    const body = JSON.stringify({ ...row, sealedDataKey: Buffer.from(row.sealedDataKey).toString('base64') })
    const entry = this.#mac(customerId, body) + body
    if (entry.length > MAX_ENTRY_BYTES) return
    this.#options.redis.set(this.#name(customerId), entry, MAX_AGE_MS).catch(() => {}) // Told by the driver.
  }

  #name(customerId: string) {
    return `assay:${this.#options.keyRing.installationId}:record:${customerId}`
  }

  // A customer id has no space.
  #mac(customerId: string, body: string) {
    return installationMac(
      this.#options.keyRing.installationKey,
      'cached record',
      `${customerId} ${body}`,
      32,
    )
  }
}
