import { within } from '../../db/deadline.ts'
import { wasAnswered } from '../../db/errors.ts'
import { loadPage, type Page, type Poll, poll, type RevocationRow } from '../../db/queries/change-feed.ts'
import { deleteReplica } from '../../db/queries/replicas.ts'
import { Unavailable } from '../lib/errors.ts'
import { VERSION } from '../lib/version.ts'
import type { ChangeFeedOptions } from './change-feed-options.ts'
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
import { Report } from './report.ts'

/** A request that finds the state too old waits for a poll at most this long (ms). */
const JOIN_POLL_MS = 250
/** The poll interval while a request waits for every replica (ms). */
const WAIT_POLL_MS = 25
/** The poll interval while the lease has expired (ms). */
const RECOVERY_POLL_MS = 100
/**
 * The most statements of one poll until one of them renews the lease. If a statement does not return all pages, the
 * others are loaded separately.
 */
const MAX_ATTEMPTS = 20

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
  readonly #report: Report
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
    this.#report = new Report(options)
    this.#lastChange = new LastChange(options.log)
    this.#lease = new Lease(options.clock, options.maxStaleness)
    const interval = () => (this.hasLease() ? this.#interval : RECOVERY_POLL_MS)
    this.#poller = new Poller({ ...options, poll: () => this.#poll(), interval })
  }

  /** Milliseconds between two timed polls. */
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
    if (!this.hasLease()) throw new Unavailable('change feed: the lease has expired', 'change_feed')
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

  /** Increases with every full reload, also after a database restart. Anything read in an earlier era is outdated. */
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
    if (known === undefined)
      throw new Unavailable('change feed: no poll has succeeded since the change', 'change_feed')
  }

  /** Resolves once a poll sent after this call is applied, so that every change acknowledged before is known. */
  async readBarrier(): Promise<void> {
    if (!(await this.#poller.pollAgain()) || !this.hasLease())
      throw new Unavailable('change feed: no poll has succeeded since the request', 'change_feed')
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

  /**
   * Runs one statement, and reads the pages that it can't return. Returns false if another statement must follow at
   * once, which continues where it ended.
   */
  async #pollOnce(): Promise<boolean> {
    const { clock, connection, replica, maxStaleness } = this.#options
    const sent = this.#lease.moment()
    const known = this.#position()
    const applied = this.#applied
    const write = !this.hasLease() || this.#report.isDue(sent, applied, this.#interval)
    const [answer] = await poll(connection, { replica, version: VERSION, applied, maxStaleness, write })
    if (!this.#isContinuation(known, answer)) return false
    const isWhole = this.#accept(answer, sent, clock.monotonic())
    const isDone = answer.written ? this.#reported(sent, applied, isWhole) : isWhole
    if (isDone) this.#reportLater()
    if (!isWhole) await this.#load()
    return isDone
  }

  /** Reads the revocations after the last one applied, page by page, as after a start. It renews no lease. */
  async #load(): Promise<void> {
    for (let isWhole = false; !isWhole; ) {
      const known = this.#position()
      const [page] = await loadPage(this.#options.db, { applied: this.#applied })
      if (!this.#isContinuation(known, page)) return
      isWhole = this.#applyPage(page)
    }
  }

  /**
   * Whether the answer continues the local state. If not, the local state is dropped. Throws Unavailable if a standby answered.
   */
  #isContinuation<Answer extends Page>(
    known: KnownPosition | undefined,
    answer: Answer | undefined,
  ): answer is Answer {
    if (!answer || answer.standby)
      throw new Unavailable('change feed: the answer came from a standby', 'change_feed')
    const reason = known && findReloadReason(known, answer)
    if (!reason) return true
    logReload(this.#options.log, reason, known, answer)
    this.#reset(reason)
    return false
  }

  /** A poll has written this replica's row. Returns whether it renewed the lease. */
  #reported(sent: Moment, applied: number, isWhole: boolean): boolean {
    const renews = this.#report.wrote(sent, applied) && isWhole
    if (renews) this.#lease.renew(sent)
    return renews
  }

  /**
   * Polls again soon if this replica has applied more than it has reported: a request may be waiting for the report.
   */
  #reportLater() {
    const dueIn = this.#report.dueIn(this.#applied)
    if (dueIn !== undefined) this.#poller.wake(dueIn)
  }

  /**
   * The known position, which is read before a poll is sent: the answer must contain everything committed by then,
   * but not what this replica commits during the poll. Undefined without any state.
   */
  #position(): KnownPosition | undefined {
    const [timeline, committed, sweptAt] = [this.#timeline, this.#committed, this.#sweptAt]
    return timeline === undefined
      ? undefined
      : { timeline, committed, readAt: this.#databaseClock.lastRead, sweptAt }
  }

  /** Applies the poll's rows. Returns whether they were all of them. */
  #accept(answer: Poll, sent: Moment, received: number): boolean {
    const isWhole = this.#applyPage(answer)
    this.#timeline = answer.timeline
    this.#others = answer
    this.#databaseClock.set(answer.now, sent.monotonic, received)
    this.#sentAt = sent.monotonic
    this.#sweep()
    return isWhole
  }

  #applyPage({ rows: json, whole, seq }: Page): boolean {
    const rows: RevocationRow[] = json === null ? [] : JSON.parse(json)
    for (const row of rows) this.#apply(row)
    if (this.#lastChange.isReplaced(rows)) this.#count('commits_lost')
    this.#rows += rows.length
    this.#applied = whole ? seq : rows.at(-1)![0]
    this.#committed = Math.max(this.#committed, seq)
    return whole
  }

  #reset(reason: ReloadReason) {
    this.#era++
    this.#count(reason)
    this.#lastChange.reset(reason)
    this.#timeline = undefined
    this.#applied = 0
    this.#committed = 0
    this.#report.clear()
    this.#sweptAt = 0
    this.#lease.expire()
    this.#options.revocations.clear()
    this.#options.forget.all()
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
