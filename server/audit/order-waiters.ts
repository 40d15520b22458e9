import { findLastPosition } from '../../db/queries/audit-order.ts'
import { type ApiError, RateLimitedError, Unavailable } from '../lib/errors.ts'
import { OwnerCounts } from '../lib/owner-counts.ts'
import type { Services } from '../services.ts'

/** The most requests of a process that wait for events at the same time. Each takes a connection and a timer. */
export const MAX_WAITERS = 64
/** The most requests of one operator among them. */
export const MAX_WAITERS_OF_OPERATOR = 16
/** Seconds after which a refused request may be repeated. */
const RETRY_AFTER = 5

interface Waiter {
  position: number
  /** `isWorthReading`: whether the order no longer ends at the waiter's position. */
  wake(isWorthReading: boolean): void
  fail(error: ApiError): void
}

/**
 * Requests that wait at the end of the audit's order. The sequencer calls `look` each second. While requests wait, `look` reads
 * the last position once for all of them.
 */
export class OrderWaiters {
  readonly #db: Services['db']
  readonly #waiting = new Set<Waiter>()
  readonly #admitted = new OwnerCounts()
  #size = 0
  #isClosed = false

  constructor({ db }: Pick<Services, 'db'>) {
    this.#db = db
  }

  /** Requests that are admitted, whether they wait or read at the moment. */
  get size(): number {
    return this.#size
  }

  /** Counts a request while `run` runs. Throws RateLimitedError if there are too many. */
  async admit<Result>(operator: string, run: () => Promise<Result>): Promise<Result> {
    if (this.#size >= MAX_WAITERS) throw new RateLimitedError(RETRY_AFTER, TOO_MANY)
    if (this.#admitted.of(operator) >= MAX_WAITERS_OF_OPERATOR)
      throw new RateLimitedError(RETRY_AFTER, TOO_MANY_OF_OPERATOR)
    this.#size++
    this.#admitted.add(operator)
    try {
      return await run()
    } finally {
      this.#size--
      this.#admitted.remove(operator)
    }
  }

  /**
   * Resolves to true once the order no longer ends at `position`, and to false after `timeoutMs`, when the server drains or when
   * `signal` is aborted. Throws Unavailable when the order can't be read.
   */
  wait(position: number, timeoutMs: number, signal: AbortSignal): Promise<boolean> {
    if (this.#isClosed || signal.aborted || timeoutMs <= 0) return Promise.resolve(false)
    const { promise, resolve, reject } = Promise.withResolvers<boolean>()
    const waiter = { position, wake: resolve, fail: reject }
    const stop = () => resolve(false)
    const timer = setTimeout(stop, timeoutMs)
    signal.addEventListener('abort', stop, { once: true })
    this.#waiting.add(waiter)
    return promise.finally(() => {
      clearTimeout(timer)
      signal.removeEventListener('abort', stop)
      this.#waiting.delete(waiter)
    })
  }

  /**
   * Wakes the requests whose position isn't the last one. After a failover that lost positions, the last one may be lower than
   * theirs; their next read then reports that.
   */
  async look(): Promise<void> {
    if (this.#waiting.size === 0) return
    const [row] = await findLastPosition(this.#db, {})
    for (const { position, wake } of this.#waiting) if (position !== row!.last) wake(true)
  }

  /** Ends all waits with a 503, because it is unknown whether there are new events. */
  fail() {
    for (const { fail } of this.#waiting) fail(UNKNOWN)
  }

  /** Ends all waits, and every later one at once. */
  close() {
    this.#isClosed = true
    for (const { wake } of this.#waiting) wake(false)
  }
}

const UNKNOWN = new Unavailable(
  'audit: the latest position could not be read for a waiting request',
  'database',
)
const TOO_MANY = `too many requests are waiting for events; try again in ${RETRY_AFTER} s, or omit wait`
const TOO_MANY_OF_OPERATOR = `too many requests of this operator are waiting for events; try again in ${RETRY_AFTER} s, or omit wait`
