import { LRUCache } from 'lru-cache'
import type { Database } from '../../db/client.ts'
import type { Querier } from '../../db/queries/change-feed.ts'
import type { RecordRow } from '../../db/queries/customer-keys.ts'
import { SealError } from '../crypto/envelope.ts'
import { parseHeader } from '../jwt/jwt.ts'
import { formatKid, parseKid, type Use } from '../jwt/kid.ts'
import { Grouped } from '../lib/batcher.ts'
import { Unavailable } from '../lib/errors.ts'
import type { Log } from '../lib/logger.ts'
import type { Bus } from '../revocation/change-feed.ts'
import type { Revocations } from '../revocation/revocation-list.ts'
import {
  brokenRecord,
  type CustomerRecord,
  has,
  isGone,
  keyOf,
  noteGone,
  openRecord,
  readRecords,
  type SigningKey,
  type Vault,
} from './customer-keys.ts'
import type { Shelf } from './redis-cache.ts'

/** Customers whose records are kept. The cap bounds the memory; whoever falls out is read again. */
const MOST = 120_000
/** How long a row that doesn't open is not tried again (ms): its mending is felt soon, its flood is not. */
const BROKEN_FOR = 5_000
/** Statements under way at once. */
const ABREAST = 2
/** A load that loses against a change is repeated this often. */
const TRIES = 3

/** Where a header leads: to a key, to a customer whose record must be read first, or nowhere. */
export type Found = SigningKey | { load: string; missing: string } | 'header_malformed' | 'key_unknown'

export interface KeysOptions {
  db: Querier & Pick<Database, 'renew'>
  vault: Vault
  bus: Pick<Bus, 'era' | 'applied' | 'timeline' | 'poll'>
  revocations: Pick<Revocations, 'changedAt'>
  /** Where replicas share records, if they do. */
  shelf: Pick<Shelf, 'find' | 'put' | 'count'> | undefined
  log: Log
}

/** The customers' records that this replica holds, each used only while no later change of that customer is known. */
export class Keys {
  readonly #options: KeysOptions
  /** By protected header segment, of which each key has exactly one. */
  readonly #byHeader = new Map<string, SigningKey>()
  readonly #records = new LRUCache<string, CustomerRecord>({
    max: MOST,
    dispose: record => {
      for (const key of record.keys) this.#byHeader.delete(key.header)
    },
  })
  readonly #loads = new Map<string, Promise<CustomerRecord>>()
  /** Customers that are met at once share a statement. */
  readonly #reads: Grouped<string, RecordRow>

  constructor(options: KeysOptions) {
    this.#options = options
    this.#reads = new Grouped(ids => readRecords(options.db, ids), ABREAST)
  }

  get vault() {
    return this.#options.vault
  }

  get size() {
    return this.#records.size
  }

  /** The key that a protected header names, from memory alone. Made-up kids cost no look-up. */
  find(header: string, use: Use): Found {
    const key = this.#byHeader.get(header)
    if (key === undefined) return this.#locate(header, use)
    this.#records.get(key.record.customerId) // Keeps the hot ones in.
    return key.use === use ? key : 'header_malformed'
  }

  #locate(segment: string, use: Use): Found {
    const header = parseHeader(segment)
    const name = header && parseKid(this.vault.installationKey, header.kid)
    if (!header || name?.use !== use) return header && !name ? 'key_unknown' : 'header_malformed'
    const record = this.#records.get(name.customerId)
    const key = record && keyOf(record, header.kid)
    // A kid that the record has, under another alg or typ than the key's own, or in another spelling.
    if (key) return key.header === segment ? key : 'header_malformed'
    if (record && isGone(record, header.kid)) return 'key_unknown'
    return { load: name.customerId, missing: header.kid }
  }

  /** The record in memory. A broken one has no keys. */
  peek(customerId: string): CustomerRecord | undefined {
    return this.#records.get(customerId)
  }

  /**
   * The record, read if it isn't here, or if it lacks `wanted`, a kid or API key id that we made and that may be newer
   * than it. What is still not there after the read is remembered as gone: we made it, so it will not come back. A broken
   * record is no answer: what it would say can't be known. Throws Unavailable then.
   */
  async record(customerId: string, wanted?: string): Promise<CustomerRecord> {
    const known = this.peek(customerId)
    if (known?.state === 'broken') throw broken(customerId)
    if (known && (wanted === undefined || has(known, wanted) || isGone(known, wanted))) return known
    const earlier = wanted === undefined ? undefined : this.#loads.get(customerId)
    if (earlier) {
      // It was sent before we asked, and so may be older than what is wanted.
      await earlier
      return this.record(customerId, wanted)
    }
    const record = await this.#load(customerId, wanted)
    if (record.state === 'broken') throw broken(customerId)
    if (wanted !== undefined && !has(record, wanted)) noteGone(record, wanted)
    return record
  }

  /**
   * The key of this version, which the database has just named. An access key that was retired since is stood in for by the
   * latest: sessions live on through the emergency that retired it, and no claim names a version.
   */
  async signing(customerId: string, use: Use, version: number): Promise<SigningKey> {
    const known = this.peek(customerId)
    return (known && versionOf(known, use, version)) ?? this.#newlySigning(customerId, use, version)
  }

  async #newlySigning(customerId: string, use: Use, version: number): Promise<SigningKey> {
    const kid = formatKid(this.vault.installationKey, { customerId, use, version })
    const record = await this.record(customerId, kid)
    const key = keyOf(record, kid) ?? (use === 'access' ? latest(record.keys, use) : undefined)
    if (!key)
      throw new Unavailable(`customer ${customerId}: no ${use} key of version ${version}`, 'broken_record')
    return key
  }

  /** Concurrent readers of one customer share one read. */
  #load(customerId: string, wanted: string | undefined): Promise<CustomerRecord> {
    const under = this.#loads.get(customerId)
    if (under) return under
    const load = this.#obtain(customerId, wanted).finally(() => this.#loads.delete(customerId))
    this.#loads.set(customerId, load)
    return load
  }

  /** From the shelf only what isn't here at all: a record that lacks what is wanted may well be the newer one. */
  async #obtain(customerId: string, wanted: string | undefined): Promise<CustomerRecord> {
    const shelved = this.#records.has(customerId) ? undefined : await this.#takeShelved(customerId, wanted)
    return shelved ?? this.#read(customerId)
  }

  /**
   * Undefined: the database is asked. Beside the rule, an entry of a number that this replica hasn't reached is not used:
   * it may be of a database that went back since. Neither is one without what is wanted, which may have been made later.
   */
  async #takeShelved(customerId: string, wanted: string | undefined): Promise<CustomerRecord | undefined> {
    const { shelf, bus } = this.#options
    const { era } = bus
    const row = await shelf?.find(customerId)
    if (!shelf || !row) return undefined
    const holds = row.seq <= bus.applied && this.#holds(customerId, row, era)
    const record = holds ? this.#open(customerId, row) : undefined
    const usable = record && record.state !== 'broken' && (wanted === undefined || has(record, wanted))
    shelf.count(usable ? 'used' : 'refused')
    return usable ? this.#keep(record) : undefined
  }

  async #read(customerId: string): Promise<CustomerRecord> {
    const { bus, shelf } = this.#options
    for (let tried = 0; tried < TRIES; tried++) {
      const { era } = bus
      const row = await this.#reads.add(customerId)
      if (this.#holds(customerId, row, era)) {
        const record = this.#open(customerId, row)
        if (record.state !== 'broken') shelf?.put(customerId, row)
        return this.#keep(record)
      }
      if (era !== bus.era || (!row.standby && row.timeline === bus.timeline)) continue
      await bus.poll()
      // The bus has just heard from the primary: what answered here is another server.
      if (row.standby || row.timeline !== bus.timeline) this.#options.db.renew()
    }
    throw new Unavailable(`customer ${customerId}: its record changed at every read`, 'changing')
  }

  /** One rule: read with the counter and the timeline, used only if no later change is known, on the same timeline. */
  #holds(customerId: string, row: RecordRow, era: number): boolean {
    const { bus, revocations } = this.#options
    const same = era === bus.era && !row.standby && row.timeline === bus.timeline
    return same && row.seq >= revocations.changedAt(customerId)
  }

  #open(customerId: string, row: RecordRow): CustomerRecord {
    try {
      return openRecord(this.vault, customerId, row)
    } catch (error) {
      if (!(error instanceof SealError)) throw error
      this.#options.log.error(
        { customerId, reason: error.reason },
        'the sealed secrets of a customer do not open',
      )
      return brokenRecord(customerId)
    }
  }

  #keep(record: CustomerRecord): CustomerRecord {
    for (const id of this.#records.get(record.customerId)?.gone ?? [])
      if (!has(record, id)) noteGone(record, id)
    this.#records.set(record.customerId, record, { ttl: record.state === 'broken' ? BROKEN_FOR : 0 })
    for (const key of record.keys) this.#byHeader.set(key.header, key)
    return record
  }

  readonly forget = {
    one: (customerId: string) => void this.#records.delete(customerId),
    all: () => this.#records.clear(),
  }
}

const broken = (customerId: string) =>
  new Unavailable(`customer ${customerId}: its secrets do not open`, 'broken_record')

const versionOf = (record: CustomerRecord, use: Use, version: number) =>
  record.keys.find(key => key.use === use && key.version === version)

const latest = (keys: readonly SigningKey[], use: Use) =>
  keys.filter(key => key.use === use).sort((a, b) => b.version - a.version)[0]
