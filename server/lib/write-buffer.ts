import { LRUCache } from 'lru-cache'
import type { Log } from './logger.ts'

/** Of one kind of note: written together, this long after the first (ms). */
const FLUSH_INTERVAL_MS = 1_000
/** Waiting at most; what comes on top is dropped. */
const MAX_BATCH = 1_000
/** Remembered as noted. */
const MAX_REMEMBERED = 100_000

/**
 * Notes that may be late or lost, written together: that a key was used, that a client has what it was given. Never on
 * anybody's way: `note` returns at once, a write that fails is dropped.
 */
export class WriteBuffer<Item> {
  readonly #write: (items: Item[]) => Promise<unknown>
  readonly #log: Log
  readonly #waiting = new Map<string, Item>()
  readonly #noted: LRUCache<string, true>
  #timer: NodeJS.Timeout | undefined
  dropped = 0

  /** A key noted is not noted again within `quiet` milliseconds (0: for as long as it is remembered). */
  constructor(options: { write: (items: Item[]) => Promise<unknown>; quiet: number; log: Log }) {
    this.#write = options.write
    this.#log = options.log
    this.#noted = new LRUCache({ max: MAX_REMEMBERED, ttl: options.quiet })
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
    await this.#write(items).catch(error => {
      this.dropped += items.length
      this.#log.debug({ err: error }, 'a batch of notes was dropped')
    })
  }
}
