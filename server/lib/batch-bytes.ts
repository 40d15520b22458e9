import type { Clock } from './clock.ts'
import { RateLimitedError } from './errors.ts'
import { Windows } from './windows.ts'

/** The limit for a customer's batches: about 35 typical batches of 100 tokens a second. */
const MAX_BYTES = 4 * 1024 * 1024
const WINDOW_SECONDS = 2

/**
 * Limits the bytes of batches that each customer sends to this process. Reading a megabyte costs a millisecond,
 * whatever it contains, and a caller can send megabytes endlessly.
 */
export class BatchBytes {
  readonly #windows: Windows

  constructor(clock: Pick<Clock, 'monotonic'>) {
    this.#windows = new Windows(clock, WINDOW_SECONDS)
  }

  /** Called before a body is read. Throws RateLimitedError. */
  take(customerId: string, bytes: number) {
    const wait = this.#windows.take(customerId, MAX_BYTES, bytes)
    if (wait === undefined) return
    const message = `this customer has sent more than ${MAX_BYTES} bytes of batches in ${WINDOW_SECONDS} s; try again in ${wait} s`
    throw new RateLimitedError(wait, message, {
      name: 'batches',
      points: MAX_BYTES,
      duration: WINDOW_SECONDS,
    })
  }
}
