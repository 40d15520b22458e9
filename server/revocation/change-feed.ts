import type { Connection } from '../../db/client.ts'
import { within } from '../../db/deadline.ts'
import { wasAnswered } from '../../db/errors.ts'
import { PAGE, type Poll, poll, type RevocationRow } from '../../db/queries/change-feed.ts'
import { deleteReplica } from '../../db/queries/replicas.ts'
import type { Clock } from '../lib/clock.ts'
import { Unavailable } from '../lib/errors.ts'
import type { Log } from '../lib/logger.ts'
import { VERSION } from '../lib/version.ts'
import { DatabaseClock } from './database-clock.ts'
import { Lease, type Moment } from './lease.ts'
import { Poller, pause } from './poller.ts'
import {
  findReloadReason,
  type KnownPosition,
  LastChange,
  logReload,
  RELOAD_REASONS,
  type ReloadReason,
} from './reload.ts'
import type { RevocationList } from './revocation-list.ts'

/** A request that finds the state too old waits for a poll at most this long (ms). */
const JOIN_POLL_MS = 250
/** The poll interval while a request waits for every replica (ms). */
const WAIT_POLL_MS = 25
/**
 * A replica reports at most this often what it has applied (ms). Each report leaves a dead row in Postgres, which can't be
 * removed while an older transaction is open anywhere on the server.
 */
const MIN_REPORT_MS = 100
/** The poll interval while the lease has expired (ms). */
const RECOVERY_POLL_MS = 100
/** The most statements per poll. Each returns up to 20,000 rows. */
const MAX_ATTEMPTS = 500

export interface ChangeFeedOptions {
  /** A dedicated connection, with a timeout of at most N/2. */
  connection: Connection
  clock: Clock
  /** N, in milliseconds. */
  maxStaleness: number
  /** This process's random name among the replicas. */
  replica: string
  revocations: RevocationList
  /** Called when a customer's record has changed, or when all may have. */
  forget: { one(customerId: string): void; all(): void }
  /** Called after a local change, so that other replicas can be notified. */
  published: () => void
  log: Log
}

/**
 * Bounds the staleness of this replica's state. A token is accepted at time t only if a poll sent after t - N has
 * completed, so every revocation acknowledged before that poll was sent is known here.
 */
export class ChangeFeed {
  readonly #options: ChangeFeedOptions
  #applied = 0
  /** The highest number that is known to be committed. It is ahead of `#applied` after an act of this replica. */
  #committed = 0
  #timeline: string | undefined
  readonly #lease: Lease
  readonly #databaseClock: DatabaseClock
  /** When the last poll that was applied was sent, by the monotonic clock. */
  #sentAt = Number.NEGATIVE_INFINITY
  /** When the last poll that wrote this replica's row was sent, and what it reported as applied. */
  #report = { sentAt: Number.NEGATIVE_INFINITY, applied: 0 }
  #others: Pick<Poll, 'othersApplied' | 'othersStaleness'> = { othersApplied: null, othersStaleness: null }
  readonly #poller: Poller
  readonly #lastChange: LastChange
  #sweptAt = 0
  /** The greatest age of the state that an answer was based on (ms). */
  maxAnswerAge = 0
  #rows = 0
  #era = 0
  /** Full reloads, by their reason. */
  readonly reloads = new Map<ReloadReason, number>(RELOAD_REASONS.map(reason => [reason, 0]))

  constructor(options: ChangeFeedOptions) {
    this.#options = options
    this.#databaseClock = new DatabaseClock(options.clock)
    this.#lastChange = new LastChange(options.log)
    this.#lease = new Lease(options.clock, options.maxStaleness)
    const interval = () => (this.hasLease() ? this.#interval : RECOVERY_POLL_MS)
    this.#poller = new Poller({ ...options, poll: () => this.#poll(), interval })
  }

  /** Milliseconds between two polls that nothing else causes. */
  get #interval() {
    return Math.min(this.#options.maxStaleness / 4, 500)
  }

  get counts() {
    return { rows: this.#rows, ...this.#poller.counts }
  }

  hasLease(): boolean {
    return this.#lease.isValid()
  }

  /** Whether the database answered the last poll, if only by refusing it. */
  get reachesDatabase(): boolean {
    return wasAnswered(this.#poller.lastError)
  }

  /** Resolves once the lease is valid, waiting for a poll if necessary. Throws Unavailable. */
  async ensureLease(): Promise<void> {
    if (this.hasLease()) return
    await within(JOIN_POLL_MS, this.#poller.soonest, () => {}).catch(() => {}) // Already logged and counted.
    if (!this.hasLease()) throw new Unavailable('change feed: the lease has run out', 'change_feed')
  }

  /** Unix time by the database's clock (ms). */
  now(): number {
    return this.#databaseClock.now()
  }

  /** This replica knows every change up to this number. */
  get applied() {
    return this.#applied
  }

  get timeline() {
    return this.#timeline
  }

  /** Increases with every full reload, also after a restart of the database server. Anything read in an earlier era is outdated. */
  get era() {
    return this.#era
  }

  /** Milliseconds since the last applied poll was sent. */
  get age() {
    return this.#options.clock.monotonic() - this.#sentAt
  }

  /** Returns the age of the state for an answer given now, and updates `maxAnswerAge`. */
  recordAnswer(): number {
    const { age } = this
    if (age > this.maxAnswerAge) this.maxAnswerAge = age
    return age
  }

  /** Applies a local change before its response is sent. `applied` stays: lower numbers may still be unknown. */
  apply(rows: RevocationRow[]) {
    for (const row of rows) this.#apply(row)
    this.#committed = Math.max(this.#committed, ...rows.map(([seq]) => seq))
    this.#options.published()
  }

  #apply(row: RevocationRow) {
    this.#options.revocations.add(row)
    if (row[1] === 'customer') this.#options.forget.one(row[2])
  }

  /**
   * Resolves when no replica can still answer from a state before `seq` (by default, before anything committed when this
   * was called): every replica has applied it, or so much time has passed that no older lease is valid. Throws
   * Unavailable if no poll succeeds.
   */
  async waitForReplicas(seq?: number): Promise<void> {
    const { clock, maxStaleness } = this.#options
    const since = clock.monotonic()
    let known: number | undefined
    for (;;) {
      if (await this.#poller.pollAgain()) known ??= seq ?? this.#applied
      const { othersApplied, othersStaleness } = this.#others
      if (known !== undefined && (othersApplied === null || othersApplied >= known)) return
      if (clock.monotonic() - since >= Math.max(maxStaleness, othersStaleness ?? 0)) break
      await pause(WAIT_POLL_MS)
    }
    if (known === undefined) throw new Unavailable('change feed: no poll since the change', 'change_feed')
  }

  /** Resolves once a poll sent after this call is applied, so that every change acknowledged before is known. */
  async readBarrier(): Promise<void> {
    if (!(await this.#poller.pollAgain()) || !this.hasLease())
      throw new Unavailable('change feed: no poll since the question', 'change_feed')
  }

  /** Polls soon because another replica has published. */
  wake() {
    this.#poller.wake()
  }

  /** Polls, or joins the poll that is already in flight. */
  poll(): Promise<void> {
    return this.#poller.poll()
  }

  async #poll(): Promise<void> {
    for (let attempts = 0; !(await this.#pollOnce()); )
      if (++attempts > MAX_ATTEMPTS)
        throw new Unavailable('change feed: polls are too slow for MAX_STALENESS', 'change_feed')
  }

  /** Runs one statement. Returns false if another has to follow it at once, which continues where it ended. */
  async #pollOnce(): Promise<boolean> {
    const { clock, connection, replica, maxStaleness } = this.#options
    const sent = this.#lease.moment()
    const known = this.#position()
    const applied = this.#applied
    const write = this.#isReportDue(sent)
    const [answer] = await poll(connection, { replica, version: VERSION, applied, maxStaleness, write })
    if (!answer || answer.standby)
      throw new Unavailable('change feed: the answer came from a standby', 'change_feed')
    const reason = known && findReloadReason(known, answer)
    if (reason) {
      logReload(this.#options.log, reason, known, answer)
      return this.#reset(reason)
    }
    const isWhole = this.#accept(answer, sent, clock.monotonic())
    const isDone = answer.written ? this.#reported(sent, applied, isWhole) : isWhole
    if (isDone) this.#reportLater()
    return isDone
  }

  /**
   * Whether this poll has to write the replica's row: without a lease, before the next poll by the timer could be too late
   * to renew it, and when there is something new to report.
   */
  #isReportDue(sent: Moment): boolean {
    const age = sent.monotonic - this.#report.sentAt
    const isNews = this.#applied !== this.#report.applied
    return !this.hasLease() || age >= this.#interval / 2 || (isNews && age >= MIN_REPORT_MS)
  }

  /**
   * A poll has written this replica's row, and renews the lease if the row was already fresh: requests that wait for every
   * replica must find it, no older than N, even during a poll. Returns whether it did.
   */
  #reported(sent: Moment, applied: number, isWhole: boolean): boolean {
    const wasFresh = sent.monotonic - this.#report.sentAt < this.#options.maxStaleness / 2
    this.#report = { sentAt: sent.monotonic, applied }
    const renews = isWhole && wasFresh
    if (renews) this.#lease.renew(sent)
    return renews
  }

  /** Polls again soon if this replica has applied more than it has reported: a request may be waiting for that. */
  #reportLater() {
    if (this.#applied === this.#report.applied) return
    const age = this.#options.clock.monotonic() - this.#report.sentAt
    this.#poller.wake(MIN_REPORT_MS - age)
  }

  /**
   * Taken before a poll is sent: the answer must have everything that was committed by then, but not what this replica
   * commits meanwhile. Undefined without any state.
   */
  #position(): KnownPosition | undefined {
    const [timeline, committed, sweptAt] = [this.#timeline, this.#committed, this.#sweptAt]
    return timeline === undefined
      ? undefined
      : { timeline, committed, readAt: this.#databaseClock.lastRead, sweptAt }
  }

  /** Applies the poll's rows. Returns whether they were all of them. */
  #accept(answer: Poll, sent: Moment, received: number): boolean {
    const rows: RevocationRow[] = answer.rows === null ? [] : JSON.parse(answer.rows)
    for (const row of rows) this.#apply(row)
    if (this.#lastChange.isReplaced(rows)) this.#count('commits_lost')
    this.#rows += rows.length
    const isWhole = rows.length < PAGE
    this.#timeline = answer.timeline
    this.#applied = isWhole ? answer.seq : rows.at(-1)![0]
    this.#committed = Math.max(this.#committed, answer.seq)
    this.#others = answer
    this.#databaseClock.set(answer.now, sent.monotonic, received)
    this.#sentAt = sent.monotonic
    this.#sweep()
    return isWhole
  }

  #reset(reason: ReloadReason): false {
    this.#era++
    this.#count(reason)
    this.#lastChange.reset(reason)
    this.#timeline = undefined
    this.#applied = 0
    this.#committed = 0
    this.#report = { sentAt: Number.NEGATIVE_INFINITY, applied: 0 }
    this.#sweptAt = 0
    this.#lease.expire()
    this.#options.revocations.clear()
    this.#options.forget.all()
    return false
  }

  #count(reason: ReloadReason) {
    this.reloads.set(reason, this.reloads.get(reason)! + 1)
  }

  #sweep() {
    const now = this.#databaseClock.lastRead
    if (now - this.#sweptAt < 60_000) return
    this.#sweptAt = now
    this.#options.revocations.sweep(now / 1000)
  }

  /** Loads the state and starts polling. Throws Unavailable if no poll succeeds in time. */
  start(): Promise<void> {
    return this.#poller.start()
  }

  /** Stops polling, removes this replica's row, so that no request waits for it, and closes the connection. */
  async stop(): Promise<void> {
    await this.#poller.stop()
    this.#lease.expire()
    const { connection, replica } = this.#options
    await deleteReplica(connection, { replica }).catch(() => {})
    await connection.close()
  }
}
