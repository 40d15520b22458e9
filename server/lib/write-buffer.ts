import { LRUCache } from 'lru-cache'
import type { Log } from './logger.ts'

/** The buffer is flushed this long after its first item (ms). */
const FLUSH_INTERVAL_MS = 1_000
/** The most items in the buffer; further items are dropped. */
const MAX_BATCH = 1_000
/** The most keys remembered as recently written. */
const MAX_REMEMBERED = 100_000

/**
 * Batches writes that may be late or lost, for example that an API key was used or that a client received its
 * token. It never delays a request: `enqueue` returns at once, and a failed write is dropped.
 */
export class WriteBuffer<Item> {
  readonly #options: { write: (items: Item[]) => Promise<unknown>; log: Log }
  readonly #waiting = new Map<string, Item>()
  readonly #noted: LRUCache<string, true>
  #timer: NodeJS.Timeout | undefined
  dropped = 0

  /** A key is not written again within `quiet` milliseconds (0: for as long as it is remembered). */
  constructor(options: { write: (items: Item[]) => Promise<unknown>; quiet: number; log: Log }) {
    this.#options = options
    // With `max` it would fill its arrays at once, which takes 10 ms of each start.
    this.#noted = new LRUCache({ maxSize: MAX_REMEMBERED, sizeCalculation: () => 1, ttl: options.quiet })
  }

  enqueue(key: string, item: Item) {
    if (this.#noted.get(key)) return
    if (this.#waiting.size >= MAX_BATCH) return void this.dropped++
    this.#noted.set(key, true)
    this.#waiting.set(key, item)
    this.#timer ??= setTimeout(() => void this.flush(), FLUSH_INTERVAL_MS)
  }

  async flush(): Promise<void> {
    clearTimeout(this.#timer)
    this.#timer = undefined
    const items = [...this.#waiting.values()]
    this.#waiting.clear()
    if (items.length === 0) return
    const { write, log } = this.#options
    await write(items).catch(error => {
      this.dropped += items.length
      log.debug({ err: error }, 'a batch of notes was dropped')
    })
  }
}
