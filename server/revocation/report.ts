import type { Clock } from '../lib/clock.ts'
import type { Moment } from './lease.ts'

/**
 * A replica reports at most this often what it has applied (ms). Each report leaves a dead row in Postgres, which can't be
 * removed while an older transaction is open anywhere on the server.
 */
const MIN_REPORT_MS = 100

export interface ReportOptions {
  clock: Pick<Clock, 'monotonic'>
  /** N, in milliseconds. */
  maxStaleness: number
}

/** When the last poll that wrote this replica's row was sent, and what it reported as applied. */
export class Report {
  readonly #options: ReportOptions
  #sentAt = Number.NEGATIVE_INFINITY
  #applied = 0

  constructor(options: ReportOptions) {
    this.#options = options
  }

  /**
   * Whether a poll that is sent now has to write the row: because the next timed poll, `interval` later (ms), could
   * be too late to renew the lease, or because there is something new to report.
   */
  isDue(sent: Moment, applied: number, interval: number): boolean {
    const age = sent.monotonic - this.#sentAt
    return age >= interval / 2 || (applied !== this.#applied && age >= MIN_REPORT_MS)
  }

  /**
   * A poll has written the row. Returns whether the row was already fresh: requests that wait for every replica must find a row
   * no older than N, even during a poll that renews the lease.
   */
  wrote(sent: Moment, applied: number): boolean {
    const wasFresh = sent.monotonic - this.#sentAt < this.#options.maxStaleness / 2
    this.#sentAt = sent.monotonic
    this.#applied = applied
    return wasFresh
  }

  /** Milliseconds until a poll may report what is applied by now. Undefined if it has been reported. */
  dueIn(applied: number): number | undefined {
    if (applied === this.#applied) return undefined
    return MIN_REPORT_MS - (this.#options.clock.monotonic() - this.#sentAt)
  }

  clear() {
    this.#sentAt = Number.NEGATIVE_INFINITY
    this.#applied = 0
  }
}
