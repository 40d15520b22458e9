import { LRUCache } from 'lru-cache'
import type { Clock } from './clock.ts'

/** The most keys that are counted. With more, the keys with the oldest windows get a new window. */
const MAX_COUNTED = 100_000
/** Without `max`, because each cache would then fill its arrays at once, which takes 10 ms of each start. */
const BOUND = { maxSize: MAX_COUNTED, sizeCalculation: () => 1 }

/** Counts acts by key in memory. The window of a key starts with its first act and lasts some seconds. */
export class Windows {
  readonly #clock: Pick<Clock, 'monotonic'>
  readonly #milliseconds: number
  readonly #counts = new LRUCache<string, { used: number; end: number }>(BOUND)

  constructor(clock: Pick<Clock, 'monotonic'>, seconds: number) {
    this.#clock = clock
    this.#milliseconds = seconds * 1000
  }

  /** Undefined if the count is within the limit; otherwise the seconds until the next window. */
  take(key: string, limit: number, amount = 1): number | undefined {
    const now = this.#clock.monotonic()
    const known = this.#counts.peek(key)
    const current = known && now < known.end ? known : { used: 0, end: now + this.#milliseconds }
    if (current.used + amount > limit) return Math.max(1, Math.ceil((current.end - now) / 1000))
    current.used += amount
    if (current !== known) this.#counts.set(key, current)
    return undefined
  }
}
