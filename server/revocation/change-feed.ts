import { within } from '../../db/deadline.ts'
import { PAGE, type Poll, poll, type Querier, type RevocationRow } from '../../db/queries/change-feed.ts'
import { deleteReplica } from '../../db/queries/replicas.ts'
import type { Clock } from '../lib/clock.ts'
import { Unavailable } from '../lib/errors.ts'
import type { Log } from '../lib/logger.ts'
import { VERSION } from '../lib/version.ts'
import type { RevocationList } from './revocation-list.ts'

/** A request that finds the state too old waits for a poll, this long at most (ms). */
const JOIN_POLL_MS = 250
/** Between two polls while an answer waits for every replica (ms). */
const WAIT_POLL_MS = 25
/** A database clock that goes back further makes rows live again that were forgotten; they are kept a minute longer (ms). */
const MAX_CLOCK_STEP_BACK_MS = 30_000
/** Between two polls while nothing can be answered (ms). */
const RECOVERY_POLL_MS = 100
/** Between two polls that hints, or strict questions, ask for (ms). */
const MIN_POLL_MS = 20
/** Statements of one poll; 20,000 rows each. */
const MAX_ATTEMPTS = 500
/** Well under the shortest time that a change of a customer is kept (24 h): whoever missed more reloads (ms). */
const MAX_GAP_MS = 3_600_000

const pause = (milliseconds: number) =>
  milliseconds > 0 ? new Promise(resolve => setTimeout(resolve, milliseconds)) : undefined

/** Both clocks, in milliseconds. */
interface Moment {
  monotonic: number
  wall: number
}

export interface ChangeFeedOptions {
  /** A connection of its own, with a deadline of at most N/2. */
  connection: Querier
  clock: Clock
  /** N, in milliseconds. */
  maxStaleness: number
  /** This process's random name among the replicas. */
  replica: string
  revocations: RevocationList
  /** Called when a customer's record changed, or all may have. */
  forget: { one(customerId: string): void; all(): void }
  /** Called when this replica has changed something: whoever can be told is told. */
  published: () => void
  log: Log
}

/**
 * Keeps what this replica knows within a bound of the truth. Accepting at time a implies a finished poll that was sent
 * after a - N; whatever was acknowledged before that poll was sent is in its snapshot.
 */
export class ChangeFeed {
  readonly #options: ChangeFeedOptions
  #applied = 0
  #timeline: string | undefined
  /** Until when both clocks allow answers. */
  #lease = { monotonic: Number.NEGATIVE_INFINITY, wall: Number.NEGATIVE_INFINITY }
  /** The database's clock at the last poll (ms), and what to add to the monotonic clock to have it. */
  #databaseTime = 0
  #offset = Number.NaN
  /** The monotonic clock when the last poll that was applied was sent. */
  #sentAt = Number.NEGATIVE_INFINITY
  #others: Pick<Poll, 'othersApplied' | 'othersStaleness'> = { othersApplied: null, othersStaleness: null }
  #pollInFlight: Promise<void> | undefined
  #timer: NodeJS.Timeout | undefined
  #stopped = false
  #poked = false
  #failing = false
  #sweptAt = 0
  /** The oldest state that was ever answered from (ms). */
  maxAnswerAge = 0
  readonly counts = { polls: 0, failures: 0, rows: 0, reloads: 0 }

  constructor(options: ChangeFeedOptions) {
    this.#options = options
  }

  /** Whether an answer may be given now, by both clocks: one may have been set, the other stops while a machine sleeps. */
  hasLease(): boolean {
    const { clock } = this.#options
    return clock.monotonic() < this.#lease.monotonic && clock.wall() < this.#lease.wall
  }

  /** Resolves once usable; waits for a poll if need be. Throws Unavailable. */
  async ensureLease(): Promise<void> {
    if (this.hasLease()) return
    await within(JOIN_POLL_MS, this.poll(), () => {}).catch(() => {}) // Told, and counted.
    if (!this.hasLease()) throw new Unavailable('change feed: the lease has run out', 'change_feed')
  }

  /** Milliseconds since 1970 by the database's clock; where a poll's way leaves a doubt, ahead of it rather than behind. */
  now(): number {
    return this.#offset + this.#options.clock.monotonic()
  }

  /** Grows whenever everything is read anew: what was read before is of another era. */
  get era() {
    return this.counts.reloads
  }

  get timeline() {
    return this.#timeline
  }

  /** The number up to which every change is known here. */
  get applied() {
    return this.#applied
  }

  /** Milliseconds since the poll that the state rests on was sent. */
  get age() {
    return this.#options.clock.monotonic() - this.#sentAt
  }

  /** The age of the state that is answered from now, which `maxAnswerAge` remembers. */
  recordAnswer(): number {
    const { age } = this
    if (age > this.maxAnswerAge) this.maxAnswerAge = age
    return age
  }

  /** This replica's own change, known before its answer goes out. `applied` stays: lower numbers may be unknown. */
  apply(rows: RevocationRow[]) {
    for (const row of rows) this.#apply(row)
    this.#options.published()
  }

  #apply(row: RevocationRow) {
    this.#options.revocations.add(row)
    if (row[1] === 'customer') this.#options.forget.one(row[2])
  }

  /**
   * Resolves when no replica can answer by a state before `seq`, or before whatever was committed when this was called:
   * each has applied it, or can't have answered without a poll for as long as any of them may. Throws Unavailable when
   * that can't be known.
   */
  async waitForReplicas(seq?: number): Promise<void> {
    const { clock, maxStaleness } = this.#options
    const since = clock.monotonic()
    let known: number | undefined
    for (;;) {
      if (await this.#pollAgain()) known ??= seq ?? this.#applied
      const { othersApplied, othersStaleness } = this.#others
      if (known !== undefined && (othersApplied === null || othersApplied >= known)) return
      if (clock.monotonic() - since >= Math.max(maxStaleness, othersStaleness ?? 0)) break
      await pause(WAIT_POLL_MS)
    }
    if (known === undefined) throw new Unavailable('change feed: no poll since the change', 'change_feed')
  }

  /** Resolves once a poll that was sent after this call has been applied: whatever was acknowledged before is known. */
  async readBarrier(): Promise<void> {
    await pause(MIN_POLL_MS - this.age)
    if (!(await this.#pollAgain()) || !this.hasLease())
      throw new Unavailable('change feed: no poll since the question', 'change_feed')
  }

  /** A poll that is sent after this call. Answers whether it succeeded. */
  async #pollAgain(): Promise<boolean> {
    await this.#pollInFlight?.catch(() => {})
    return this.poll().then(
      () => true,
      () => false,
    )
  }

  /** Somebody has published: polls soon, and however often it is called, seldom more than once in MIN_POLL_MS. */
  wake() {
    if (this.#poked || this.#stopped) return
    this.#poked = true
    const wait = Math.max(0, MIN_POLL_MS - this.age)
    setTimeout(() => {
      this.#poked = false
      void this.#pollAgain()
    }, wait).unref()
  }

  /** One in flight: whoever asks meanwhile joins it. */
  poll(): Promise<void> {
    if (this.#stopped)
      return Promise.reject(new Unavailable('change feed: this replica has stopped', 'change_feed'))
    this.#pollInFlight ??= this.#poll().finally(() => {
      this.#pollInFlight = undefined
    })
    return this.#pollInFlight
  }

  async #poll(): Promise<void> {
    this.counts.polls++
    try {
      for (let idle = 0; !(await this.#pollOnce()); )
        if (++idle > MAX_ATTEMPTS)
          throw new Unavailable('change feed: polls are too slow for MAX_STALENESS', 'change_feed')
      this.#logTransition(undefined)
    } catch (error) {
      this.counts.failures++
      this.#logTransition(error)
      throw error
    }
  }

  /** One statement. Answers whether it won the lease; if not, the next one takes up where it ended. */
  async #pollOnce(): Promise<boolean> {
    const { clock, connection, replica, maxStaleness } = this.#options
    // Before sending: the lease counts from the oldest moment that the answer may speak of.
    const sent = { monotonic: clock.monotonic(), wall: clock.wall() }
    const [answer] = await poll(connection, {
      replica,
      version: VERSION,
      applied: this.#applied,
      maxStaleness,
    })
    if (!answer || answer.standby)
      throw new Unavailable('change feed: the answer came from a standby', 'change_feed')
    if (this.#isOtherTimeline(answer)) return this.#reset()
    const won = this.#accept(answer, sent, clock.monotonic())
    if (won) this.#lease = { monotonic: sent.monotonic + maxStaleness, wall: sent.wall + maxStaleness }
    return won
  }

  /** Once when polls begin to fail and once when they succeed again: an outage is one event, not two a second. */
  #logTransition(failure: unknown) {
    const failing = failure !== undefined
    if (failing === this.#failing) return
    this.#failing = failing
    if (failing)
      this.#options.log.error(
        { err: failure },
        'the database can not be polled: MAX_STALENESS after the last poll every answer is 503',
      )
    else this.#options.log.info('the database is polled again')
  }

  /** Another system or timeline, a counter that went back, a gap in which rows may have come and gone, or rows forgotten. */
  #isOtherTimeline({ timeline, seq, now }: Poll): boolean {
    if (this.#timeline === undefined) return false
    const lost = now - this.#databaseTime > MAX_GAP_MS || now < this.#sweptAt - MAX_CLOCK_STEP_BACK_MS
    return lost || timeline !== this.#timeline || seq < this.#applied
  }

  /** Applies what the poll brought. Answers whether all of it is known now and this replica was seen before. */
  #accept(answer: Poll, sent: Moment, received: number): boolean {
    const rows: RevocationRow[] = answer.rows === null ? [] : JSON.parse(answer.rows)
    for (const row of rows) this.#apply(row)
    this.counts.rows += rows.length
    const whole = rows.length < PAGE
    // Whoever waits for every replica must find this one's row, no older than N, even while a poll is under way.
    const seen =
      this.#timeline !== undefined && sent.monotonic - this.#sentAt < this.#options.maxStaleness / 2
    this.#timeline = answer.timeline
    this.#applied = whole ? answer.seq : rows.at(-1)![0]
    this.#others = answer
    this.#setTime(answer.now, sent.monotonic, received)
    this.#sentAt = sent.monotonic
    this.#sweep()
    return whole && seen
  }

  /** The database read its clock between sending and receiving. What was known before stays, if it can be true still. */
  #setTime(now: number, sent: number, received: number) {
    const [least, most] = [now - received, now - sent]
    if (!(this.#offset >= least && this.#offset <= most)) this.#offset = most
    this.#databaseTime = now
  }

  #reset(): false {
    this.counts.reloads++
    this.#options.log.warn(
      'the database is another, went back, or was out of reach for long: everything is read anew',
    )
    this.#timeline = undefined
    this.#applied = 0
    this.#sweptAt = 0
    this.#lease = { monotonic: Number.NEGATIVE_INFINITY, wall: Number.NEGATIVE_INFINITY }
    this.#options.revocations.clear()
    this.#options.forget.all()
    return false
  }

  #sweep() {
    if (this.#databaseTime - this.#sweptAt < 60_000) return
    this.#sweptAt = this.#databaseTime
    this.#options.revocations.sweep(this.#databaseTime / 1000)
  }

  /** Loads the state and goes on polling. Throws when the first poll fails. */
  async start(): Promise<void> {
    await this.poll()
    this.#schedule()
  }

  #schedule() {
    const interval = this.hasLease() ? Math.min(this.#options.maxStaleness / 4, 500) : RECOVERY_POLL_MS
    this.#timer = setTimeout(() => {
      this.poll()
        .catch(() => {}) // Told, and counted.
        .finally(() => this.#stopped || this.#schedule())
    }, interval)
  }

  /** Ends the polling and leaves the replicas, so that nobody waits for this one. */
  async stop(): Promise<void> {
    this.#stopped = true
    clearTimeout(this.#timer)
    await this.#pollInFlight?.catch(() => {})
    this.#lease.monotonic = Number.NEGATIVE_INFINITY
    await deleteReplica(this.#options.connection, { replica: this.#options.replica }).catch(() => {})
  }
}
