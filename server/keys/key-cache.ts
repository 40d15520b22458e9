import { LRUCache } from 'lru-cache'
import type { Database } from '../../db/client.ts'
import type { Querier } from '../../db/queries/change-feed.ts'
import type { RecordRow } from '../../db/queries/customer-keys.ts'
import { SealError } from '../crypto/envelope.ts'
import type { KeyRing } from '../crypto/key-ring.ts'
import { parseHeader } from '../jwt/jwt.ts'
import { formatKid, parseKid, type Use } from '../jwt/kid.ts'
import { Batcher } from '../lib/batcher.ts'
import { Unavailable } from '../lib/errors.ts'
import type { Log } from '../lib/logger.ts'
import type { ChangeFeed } from '../revocation/change-feed.ts'
import type { RevocationList } from '../revocation/revocation-list.ts'
import {
  addMissing,
  brokenRecord,
  type CustomerRecord,
  has,
  isMissing,
  keyOf,
  openRecord,
  readRecords,
  type SigningKey,
} from './customer-keys.ts'
import type { RedisKeyCache } from './redis-cache.ts'

/**
 * The most customers whose records are cached, to limit memory. An evicted record is read again when needed.
 */
const MAX_CACHED_CUSTOMERS = 120_000
/**
 * A row that can't be decrypted is retried after this time (ms): a fix takes effect soon, and a flood costs little.
 */
const BROKEN_RETRY_MS = 5_000
/** The most concurrent statements. */
const LOAD_CONCURRENCY = 2
/** The most attempts to load a record that changes while it is being loaded. */
const MAX_ATTEMPTS = 3

/** The result of looking up a header: a key, a customer whose record must be loaded first, or a refusal. */
export type Found = SigningKey | { load: string; missing: string } | 'header_malformed' | 'key_unknown'

export interface KeyCacheOptions {
  db: Querier & Pick<Database, 'kind' | 'reconnect'>
  keyRing: KeyRing
  /** The server's own. */
  issuer: string
  changeFeed: Pick<ChangeFeed, 'era' | 'applied' | 'timeline' | 'poll'>
  revocations: Pick<RevocationList, 'changedAt'>
  /** The cache that replicas share; undefined without Redis. */
  redisKeyCache: Pick<RedisKeyCache, 'find' | 'put' | 'count'> | undefined
  log: Log
}

/** This replica's cache of customer records. A record is used only while no later change of it is known. */
export class KeyCache {
  readonly #options: KeyCacheOptions
  /** By protected header segment, of which each key has exactly one. */
  readonly #byHeader = new Map<string, SigningKey>()
  readonly #records = new LRUCache<string, CustomerRecord>({
    // Without `max`, because the cache would then fill its arrays at once, which takes 10 ms of each start.
    maxSize: MAX_CACHED_CUSTOMERS,
    sizeCalculation: () => 1,
    dispose: record => {
      for (const key of record.keys) {
        this.#byHeader.delete(key.header)
        key.pair?.release()
      }
    },
  })
  readonly #loads = new Map<string, Promise<CustomerRecord>>()
  /** Concurrent loads of several customers share a statement. */
  readonly #reads: Batcher<string, RecordRow>

  constructor(options: KeyCacheOptions) {
    this.#options = options
    this.#reads = new Batcher(ids => readRecords(options.db, ids), {
      database: options.db,
      concurrency: LOAD_CONCURRENCY,
      owner: id => id,
    })
  }

  get keyRing() {
    return this.#options.keyRing
  }

  get size() {
    return this.#records.size
  }

  /** Finds the key that a protected header names, in memory only. A made-up kid causes no load. */
  findByHeader(header: string, use: Use): Found {
    const key = this.#byHeader.get(header)
    if (key === undefined) return this.#locate(header, use)
    this.#records.get(key.record.customerId) // Marks the record as recently used.
    return key.use === use ? key : 'header_malformed'
  }

  #locate(segment: string, use: Use): Found {
    const header = parseHeader(segment)
    const name = header && parseKid(this.keyRing.installationKey, header.kid)
    if (!header || name?.use !== use) return header && !name ? 'key_unknown' : 'header_malformed'
    const record = this.#records.get(name.customerId)
    const key = record && keyOf(record, header.kid)
    // The record has this kid, but with another alg or typ, or in another spelling.
    if (key) return key.header === segment ? key : 'header_malformed'
    if (record && isMissing(record, header.kid)) return 'key_unknown'
    return { load: name.customerId, missing: header.kid }
  }

  /** The record in memory. A broken one has no keys. */
  get(customerId: string): CustomerRecord | undefined {
    return this.#records.get(customerId)
  }

  /**
   * Returns the record. Loads it if it isn't cached, or if it lacks `wanted`, a kid or API key id that we made and that may be
   * newer than the cached record. If the loaded record lacks it too, `wanted` is cached as missing, because ids are never reused.
   * Throws Unavailable if the record is broken.
   */
  async load(customerId: string, wanted?: string): Promise<CustomerRecord> {
    const known = this.get(customerId)
    if (known?.state === 'broken') throw broken(customerId)
    if (known && (wanted === undefined || has(known, wanted) || isMissing(known, wanted))) return known
    const earlier = wanted === undefined ? undefined : this.#loads.get(customerId)
    if (earlier) {
      // This load was sent before our call, so its record may be older than `wanted`.
      await earlier
      return this.load(customerId, wanted)
    }
    const record = await this.#load(customerId, wanted)
    if (record.state === 'broken') throw broken(customerId)
    if (wanted !== undefined && !has(record, wanted)) addMissing(record, wanted)
    return record
  }

  /**
   * The key of this version, which a statement has just named. If an access key has been retired or replaced since, and can't
   * sign any more, returns the latest one instead: sessions survive the emergency that retired it, and no claim names a
   * version.
   */
  async signingKey(customerId: string, use: Use, version: number): Promise<SigningKey> {
    const known = this.get(customerId)
    const key = known && versionOf(known, use, version)
    return key && canSign(key) ? key : this.#newlySigning(customerId, use, version)
  }

  async #newlySigning(customerId: string, use: Use, version: number): Promise<SigningKey> {
    const kid = formatKid(this.keyRing.installationKey, { customerId, use, version })
    const known = await this.load(customerId, kid)
    // Another replica has just put the next key into use.
    const record = isNext(keyOf(known, kid)) ? await this.reload(customerId) : known
    const named = keyOf(record, kid)
    const key = named && canSign(named) ? named : use === 'access' ? latest(record.keys, use) : undefined
    if (!key)
      throw new Unavailable(`customer ${customerId}: no ${use} key of version ${version}`, 'broken_record')
    return key
  }

  /** Reads the record again, after this call. Throws Unavailable. */
  reload(customerId: string): Promise<CustomerRecord> {
    return this.#loadFromDatabase(customerId)
  }

  /** Concurrent readers of one customer share one read. */
  #load(customerId: string, wanted: string | undefined): Promise<CustomerRecord> {
    const under = this.#loads.get(customerId)
    if (under) return under
    const load = this.#loadThrough(customerId, wanted).finally(() => this.#loads.delete(customerId))
    this.#loads.set(customerId, load)
    return load
  }

  /** Reads Redis only if no record is cached here: a cached one that lacks `wanted` may be newer than Redis's. */
  async #loadThrough(customerId: string, wanted: string | undefined): Promise<CustomerRecord> {
    const shelved = this.#records.has(customerId) ? undefined : await this.#loadFromRedis(customerId, wanted)
    return shelved ?? this.#loadFromDatabase(customerId)
  }

  /**
   * Undefined if the database must be read instead. Apart from the rule of #isCurrent, an entry with a number that this replica
   * hasn't reached is refused: the database may have lost that number since. An entry without `wanted` is refused too, because
   * `wanted` may be newer.
   */
  async #loadFromRedis(customerId: string, wanted: string | undefined): Promise<CustomerRecord | undefined> {
    const { redisKeyCache, changeFeed } = this.#options
    const { era } = changeFeed
    const row = await redisKeyCache?.find(customerId)
    if (!redisKeyCache || !row) return undefined
    const holds = row.seq <= changeFeed.applied && this.#isCurrent(customerId, row, era)
    const record = holds ? this.#open(customerId, row) : undefined
    const hasLease = record && record.state !== 'broken' && (wanted === undefined || has(record, wanted))
    redisKeyCache.count(hasLease ? 'used' : 'refused')
    return hasLease ? this.#put(record) : undefined
  }

  async #loadFromDatabase(customerId: string): Promise<CustomerRecord> {
    const { changeFeed, redisKeyCache } = this.#options
    for (let tried = 0; tried < MAX_ATTEMPTS; tried++) {
      const { era } = changeFeed
      const row = await this.#reads.add(customerId)
      if (this.#isCurrent(customerId, row, era)) {
        const record = this.#open(customerId, row)
        if (record.state !== 'broken') redisKeyCache?.put(customerId, row)
        return this.#put(record)
      }
      if (era !== changeFeed.era || (!row.standby && row.timeline === changeFeed.timeline)) continue
      await changeFeed.poll()
      // The change feed has just polled the primary, so this row came from another server.
      if (row.standby || row.timeline !== changeFeed.timeline) this.#options.db.reconnect()
    }
    throw new Unavailable(`customer ${customerId}: its record changed during every read`, 'changing')
  }

  /** A row is current if no later change of the customer is known and the timeline is still the same. */
  #isCurrent(customerId: string, row: RecordRow, era: number): boolean {
    const { changeFeed, revocations } = this.#options
    const same = era === changeFeed.era && !row.standby && row.timeline === changeFeed.timeline
    return same && row.seq >= revocations.changedAt(customerId)
  }

  #open(customerId: string, row: RecordRow): CustomerRecord {
    try {
      return openRecord(this.keyRing, this.#options.issuer, customerId, row)
    } catch (error) {
      if (!(error instanceof SealError)) throw error
      this.#options.log.error({ customerId, reason: error.reason }, "a customer's secrets can't be decrypted")
      return brokenRecord(customerId)
    }
  }

  #put(record: CustomerRecord): CustomerRecord {
    for (const id of this.#records.get(record.customerId)?.gone ?? [])
      if (!has(record, id)) addMissing(record, id)
    this.#records.set(record.customerId, record, { ttl: record.state === 'broken' ? BROKEN_RETRY_MS : 0 })
    for (const key of record.keys) this.#byHeader.set(key.header, key)
    return record
  }

  readonly forget = {
    one: (customerId: string) => void this.#records.delete(customerId),
    all: () => this.#records.clear(),
  }
}

const broken = (customerId: string) =>
  new Unavailable(`customer ${customerId}: its secrets can't be decrypted`, 'broken_record')

const versionOf = (record: CustomerRecord, use: Use, version: number) =>
  record.keys.find(key => key.use === use && key.version === version)

const latest = (keys: readonly SigningKey[], use: Use) =>
  keys.filter(key => key.use === use && canSign(key)).sort((a, b) => b.version - a.version)[0]

/** For a replaced asymmetric key, only the public half is kept. */
const canSign = (key: SigningKey) => key.pair === undefined || (key.pair.canSign && !key.isNext)

const isNext = (key: SigningKey | undefined) => key?.pair !== undefined && key.isNext
