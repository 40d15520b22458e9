import type { Clock } from '../lib/clock.ts'

/** The database's clock, as this replica knows it from its polls. */
export class DatabaseClock {
  readonly #clock: Clock
  /** From the monotonic clock to the database's (ms). */
  #offset = Number.NaN
  /** The time that the last poll returned: Unix time in milliseconds. */
  lastRead = 0

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** Unix time (ms). The estimate is uncertain by a poll's round trip; it is ahead rather than behind. */
  now(): number {
    return this.#offset + this.#clock.monotonic()
  }

  /** The database read its clock between `sent` and `received`. The old offset is kept if it is still possible. */
  set(read: number, sent: number, received: number) {
    const [least, most] = [read - received, read - sent]
    if (!(this.#offset >= least && this.#offset <= most)) this.#offset = most
    this.lastRead = read
  }
}
