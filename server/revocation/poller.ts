import type { Clock } from '../lib/clock.ts'
import { Unavailable } from '../lib/errors.ts'
import type { Log } from '../lib/logger.ts'
import { OutageLog } from '../lib/outage-log.ts'

/** A start tries to poll for this long (ms): the database may be busy, most of all while many replicas start. */
const FIRST_POLL_DEADLINE_MS = 10_000
/** A start repeats a failed poll after this long (ms). */
const FIRST_POLL_INTERVAL_MS = 100
/** The shortest interval between polls that hints and requests cause (ms). They share these polls. */
const MIN_POLL_MS = 20

const MESSAGES = {
  failing:
    "the database can't be polled; once the last poll is older than MAX_STALENESS, every response is 503",
  recovered: 'the database can be polled again',
}

export const pause = (milliseconds: number) =>
  milliseconds > 0 ? new Promise(resolve => setTimeout(resolve, milliseconds)) : undefined

export interface PollerOptions {
  /** One poll. It rejects if it failed. */
  poll: () => Promise<void>
  /** Returns the interval until the next poll (ms). Called after each poll. */
  interval: () => number
  clock: Clock
  log: Log
}

/** Decides when the database is polled: at intervals, and when a hint or a request needs it. One poll runs at a time. */
export class Poller {
  readonly #options: PollerOptions
  readonly #outages: OutageLog
  /** When the last poll began, by the monotonic clock. */
  #beganAt = Number.NEGATIVE_INFINITY
  #inFlight: Promise<void> | undefined
  /** The next poll that a hint or a request has caused, until it begins. */
  #next: Promise<boolean> | undefined
  #timer: NodeJS.Timeout | undefined
  #wakeTimer: NodeJS.Timeout | undefined
  #stopped = false
  readonly counts = { polls: 0, failures: 0 }
  /** Why the last poll failed. Undefined if it succeeded. */
  lastError: unknown

  constructor(options: PollerOptions) {
    this.#options = options
    this.#outages = new OutageLog(options.log, MESSAGES)
  }

  /** Polls, or joins the poll that is already in flight. */
  poll(): Promise<void> {
    if (this.#stopped)
      return Promise.reject(new Unavailable('change feed: this replica has stopped', 'change_feed'))
    this.#inFlight ??= this.#poll().finally(() => {
      this.#inFlight = undefined
    })
    return this.#inFlight
  }

  async #poll(): Promise<void> {
    this.counts.polls++
    this.#beganAt = this.#options.clock.monotonic()
    try {
      await this.#options.poll()
      this.#note(undefined)
    } catch (error) {
      this.counts.failures++
      this.#note(error)
      throw error
    }
  }

  #note(error: unknown) {
    this.lastError = error
    this.#outages.note(error)
  }

  /** The poll in flight or, without one, the next: whichever ends first. It may reject. */
  get soonest(): Promise<unknown> {
    return this.#inFlight ?? this.pollAgain()
  }

  /** Resolves once a poll that begins after this call has ended: true if it succeeded. Calls share a poll that hasn't begun. */
  pollAgain(): Promise<boolean> {
    this.#next ??= this.#pollNext()
    return this.#next
  }

  async #pollNext(): Promise<boolean> {
    await pause(this.#beganAt + MIN_POLL_MS - this.#options.clock.monotonic())
    while (this.#inFlight) await this.#inFlight.catch(() => {})
    // From here on a call needs a later poll.
    this.#next = undefined
    return this.poll().then(
      () => true,
      () => false,
    )
  }

  /** Polls in `delay` ms, or as soon as allowed, because another replica has published or this one has something to report. */
  wake(delay = 0) {
    if (this.#stopped) return
    if (delay <= 0) void this.pollAgain()
    else this.#wakeTimer ??= setTimeout(() => this.#wakeUp(), delay)
  }

  #wakeUp() {
    this.#wakeTimer = undefined
    this.wake()
  }

  /** Polls once, then at intervals. Throws Unavailable if no poll succeeds within FIRST_POLL_DEADLINE_MS. */
  async start(): Promise<void> {
    const end = this.#options.clock.monotonic() + FIRST_POLL_DEADLINE_MS
    while (!(await this.#pollBefore(end))) await pause(FIRST_POLL_INTERVAL_MS)
    this.#schedule()
  }

  /** Returns false if the poll failed and can be repeated before `end`, by the monotonic clock. */
  async #pollBefore(end: number): Promise<boolean> {
    try {
      await this.poll()
      return true
    } catch (error) {
      const canBeRepeated = error instanceof Unavailable && !this.#stopped
      if (canBeRepeated && this.#options.clock.monotonic() < end) return false
      throw error
    }
  }

  #schedule() {
    this.#timer = setTimeout(() => {
      this.poll()
        .catch(() => {}) // Already logged and counted.
        .finally(() => this.#stopped || this.#schedule())
    }, this.#options.interval())
  }

  /** Stops polling. Resolves once the poll in flight has ended. */
  async stop(): Promise<void> {
    this.#stopped = true
    clearTimeout(this.#timer)
    clearTimeout(this.#wakeTimer)
    await this.#inFlight?.catch(() => {})
  }
}
