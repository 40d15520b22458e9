import { LRUCache } from 'lru-cache'
import { Unavailable } from './errors.ts'
import type { Log } from './logger.ts'

/** The buffer is flushed this long after its first item, and again this long after a write that failed (ms). */
const FLUSH_INTERVAL_MS = 1_000
/** The most items in one write. When this many wait, they are written immediately. */
const MAX_BATCH = 1_000
/** The most items that wait while the database does not answer; further items are dropped. */
const MAX_QUEUED = 10_000
/** The most keys remembered as recently written. */
const MAX_REMEMBERED = 100_000

export interface WriteBufferOptions<Item> {
  write(items: Item[]): Promise<unknown>
  /** A key is not written again within this time in milliseconds (0: for as long as it is remembered). */
  quiet: number
  log: Log
}

/**
 * Batches writes that may be late, for example that an API key was used or that a client received its token. It never
 * delays a request: `enqueue` returns at once. An item is kept until the database has answered its write. Rejected
 * items are dropped, so that they do not delay the rest.
 */
export class WriteBuffer<Item> {
  readonly #options: WriteBufferOptions<Item>
  readonly #waiting = new Map<string, Item>()
  readonly #written: LRUCache<string, true>
  #timer: NodeJS.Timeout | undefined
  #flushing: Promise<void> | undefined
  #stopped = false
  dropped = 0

  constructor(options: WriteBufferOptions<Item>) {
    this.#options = options
    // Without `max`, because the cache would then fill its arrays at once, which takes 10 ms of each start.
    this.#written = new LRUCache({ maxSize: MAX_REMEMBERED, sizeCalculation: () => 1, ttl: options.quiet })
  }

  enqueue(key: string, item: Item) {
    if (this.#waiting.has(key) || this.#written.get(key)) return
    if (this.#waiting.size >= MAX_QUEUED) return void this.dropped++
    this.#waiting.set(key, item)
    if (this.#waiting.size === MAX_BATCH) void this.flush()
    else this.#flushLater()
  }

  /** Whether the item of this key is not written yet. */
  isWaiting(key: string): boolean {
    return this.#waiting.has(key)
  }

  /** Writes all waiting items. Items that can't be written now are written later. */
  async flush(): Promise<void> {
    clearTimeout(this.#timer)
    this.#timer = undefined
    if (this.#waiting.size > 0) this.#flushing ??= this.#writeAll()
    await this.#flushing
  }

  /** Flushes for the last time. */
  async stop(): Promise<void> {
    this.#stopped = true
    await this.flush()
  }

  #flushLater() {
    if (!this.#stopped) this.#timer ??= setTimeout(() => void this.flush(), FLUSH_INTERVAL_MS)
  }

  async #writeAll() {
    let answered = true
    while (answered && this.#waiting.size > 0)
      answered = await this.#write([...this.#waiting].slice(0, MAX_BATCH))
    this.#flushing = undefined
    if (!answered) this.#flushLater()
  }

  /** Returns false if the database did not answer. */
  async #write(entries: [string, Item][]): Promise<boolean> {
    const { write, log } = this.#options
    try {
      await write(entries.map(([, item]) => item))
      for (const [key] of entries) this.#written.set(key, true)
    } catch (error) {
      if (error instanceof Unavailable) return false
      if (entries.length > 1) return this.#writeEach(entries)
      this.dropped++
      log.warn({ err: error }, 'the database rejected a background write; dropping it')
    }
    for (const [key] of entries) this.#waiting.delete(key)
    return true
  }

  async #writeEach(entries: [string, Item][]): Promise<boolean> {
    for (const entry of entries) if (!(await this.#write([entry]))) return false
    return true
  }
}
