import { LRUCache } from 'lru-cache'
import type { Config } from '../config/load.ts'
import type { KeyCache } from '../keys/key-cache.ts'
import type { Clock } from '../lib/clock.ts'
import { RateLimitedError } from '../lib/errors.ts'
import { Windows } from '../lib/windows.ts'

const WINDOW_SECONDS = 60
/** The most sessions whose newest generation is known. */
const MAX_SESSIONS = 100_000
/** One session may be refreshed this often a minute, or as often as its part of the customer's quota allows. */
const MIN_REFRESHES_OF_SESSION = 60
const SESSIONS_PART = 100

export interface TokenQuotaOptions {
  keys: Pick<KeyCache, 'get'>
  clock: Pick<Clock, 'monotonic'>
  config: Pick<Config, 'tokensPerMinute'>
}

/**
 * Limits how many tokens a customer is issued in a minute by this process, and how often its sessions are refreshed:
 * each is an event of the audit, which is kept for long. A session has a limit of its own, so that one user can't use
 * up the quota of the customer's other users. Counted in memory, because every issue and refresh needs both counts.
 */
export class TokenQuota {
  readonly #options: TokenQuotaOptions
  readonly #issued: Windows
  readonly #refreshed: Windows
  readonly #sessions: Windows
  readonly #older: Windows
  /** The newest generation of each session that was presented. */
  readonly #newest = new LRUCache<string, number>({ maxSize: MAX_SESSIONS, sizeCalculation: () => 1 })

  constructor(options: TokenQuotaOptions) {
    this.#options = options
    this.#issued = new Windows(options.clock, WINDOW_SECONDS)
    this.#refreshed = new Windows(options.clock, WINDOW_SECONDS)
    this.#sessions = new Windows(options.clock, WINDOW_SECONDS)
    this.#older = new Windows(options.clock, WINDOW_SECONDS)
  }

  /** Throws RateLimitedError. */
  takeIssue(customerId: string) {
    const quota = this.#quotaOf(customerId)
    const wait = this.#issued.take(customerId, quota)
    if (wait !== undefined) throw refused('tokens', quota, wait)
  }

  /** `gen` is the generation of the token presented. Throws RateLimitedError. */
  takeRefresh(customerId: string, sessionId: string, gen: number) {
    const quota = this.#quotaOf(customerId)
    const isOlder = this.#isOlder(sessionId, gen)
    const ofSession = Math.max(MIN_REFRESHES_OF_SESSION, Math.ceil(quota / SESSIONS_PART))
    const wait = this.#sessions.take(sessionId, ofSession)
    const waitOfAll = wait === undefined ? this.#refreshed.take(customerId, quota) : undefined
    if (wait === undefined && waitOfAll === undefined) return
    if (isOlder && this.#takeOlder(customerId, sessionId, gen, quota)) return
    throw wait !== undefined ? tooOften(ofSession, wait) : refused('refreshes', quota, waitOfAll!)
  }

  /** Whether a newer token of the session was presented before. */
  #isOlder(sessionId: string, gen: number): boolean {
    const newest = this.#newest.peek(sessionId) ?? 0
    if (gen > newest) this.#newest.set(sessionId, gen)
    return gen < newest
  }

  /**
   * Accepts each older token once a minute when the limits are used up. The owner's older token reveals a thief, who could
   * otherwise use up the limits with refreshes, so that the token would never reach the database. A thief who presents the older
   * token ends the session too. All older tokens of a customer share a second quota of the same size, which one session can't use
   * up.
   */
  #takeOlder(customerId: string, sessionId: string, gen: number, quota: number): boolean {
    return (
      this.#older.take(`${sessionId}.${gen}`, 1) === undefined &&
      this.#older.take(customerId, quota) === undefined
    )
  }

  #quotaOf(customerId: string): number {
    const { keys, config } = this.#options
    return keys.get(customerId)?.tokensPerMinute ?? config.tokensPerMinute
  }
}

const refused = (what: 'tokens' | 'refreshes', points: number, wait: number) =>
  new RateLimitedError(
    wait,
    `this customer's ${points} ${what} a minute are used up; try again in ${wait} s, or ask the operator for a higher tokens_per_minute in its policy`,
    { name: what, points, duration: WINDOW_SECONDS },
  )

const tooOften = (points: number, wait: number) =>
  new RateLimitedError(
    wait,
    `this session is refreshed more than ${points} times a minute; try again in ${wait} s, and refresh only when the access token is about to expire`,
    { name: 'session', points, duration: WINDOW_SECONDS },
  )
