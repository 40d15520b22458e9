import { deleteOldOrder } from '../db/queries/audit-order.ts'
import { dropOldEvents, makePartitions } from '../db/queries/audit-partitions.ts'
import {
  countDeadRows,
  DEAD,
  deleteDead,
  deleteDeadSessions,
  deleteUnneededEpochs,
  isWhole,
  type SessionCursor,
} from '../db/queries/maintenance.ts'
import { isFirst } from '../db/queries/replicas.ts'
import { sweepErasedCustomers } from './customers/admin.ts'
import { firstCursor, retireOutlivedKeys } from './keys/retirement.ts'
import { rotateAgedKeys } from './keys/rotation.ts'
import type { Services } from './services.ts'

/** The interval between two rounds (ms). */
const INTERVAL_MS = 60_000
/** The most windows of sessions that a round reads: 28 million sessions a day. */
const MAX_SESSION_WINDOWS = 10

const FIRST_SESSION: SessionCursor = { customerId: '', id: '' }

/**
 * Runs the background jobs. One replica runs them for the whole installation, in small batches. If two
 * replicas run them at once, each skips rows that the other has locked. The next round retries a failed job.
 */
export class Maintenance {
  readonly #services: Services
  #cursor = firstCursor()
  #sessionCursor: SessionCursor = { customerId: firstCursor().customerId, id: '' }
  #timer: NodeJS.Timeout | undefined
  #round: Promise<void> | undefined
  #stopped = false

  constructor(services: Services) {
    this.#services = services
  }

  /** Compares the clocks at once, so that a restart doesn't hide that deletion is held. */
  start() {
    this.#begin(() => this.#watchClock())
    this.#timer = setInterval(() => this.#begin(() => this.run()), INTERVAL_MS)
  }

  #begin(work: () => Promise<void>) {
    this.#round ??= work().finally(() => {
      this.#round = undefined
    })
  }

  /** Runs one round now. Doesn't throw. */
  async run(): Promise<void> {
    await this.#watchClock()
    const ours = await this.#isOurs()
    // Only the replica that maintains reports them.
    if (!ours) this.#services.metrics.deadRows = 0
    for (const [job, run] of Object.entries(this.#jobs())) {
      if (this.#stopped) return
      if (ours) await this.#do(job, run)
      else this.#services.metrics.maintained(job, 'skipped', 0)
    }
  }

  /**
   * Whether this replica runs the jobs. True if the database doesn't answer: the jobs then report the error.
   */
  async #isOurs(): Promise<boolean> {
    const { db, replica } = this.#services
    const rows = await isFirst(db, { replica }).catch(() => undefined)
    return rows?.[0]?.first ?? true
  }

  /** Every replica does this, because the next one that runs the jobs must have observed the clock before a jump. */
  #watchClock(): Promise<void> {
    return this.#do('clock', () => this.#services.clockWatch.observe())
  }

  async #do(job: string, run: () => Promise<unknown>) {
    const { log, metrics } = this.#services
    try {
      const removed = await run()
      metrics.maintained(job, 'ok', typeof removed === 'number' ? removed : 0)
    } catch (error) {
      metrics.maintained(job, 'failed', 0)
      log.warn({ err: error, job }, 'a maintenance job failed; the next round retries it')
    }
  }

  /** Returns the jobs by name. A job that deletes rows returns their number. */
  #jobs(): Record<string, () => Promise<unknown>> {
    const { db, config } = this.#services
    const dead = Object.keys(DEAD) as (keyof typeof DEAD)[]
    return {
      partitions: () => makePartitions(db).then(() => {}),
      audit: () => dropOldEvents(db, config.auditRetention),
      audit_order: () => deleteOldOrder(db),
      retire: () => this.#retire(),
      erased: () => sweepErasedCustomers(this.#services),
      rotate: () => rotateAgedKeys(this.#services, config.keyMaxAge),
      dead_rows: () => this.#countDeadRows(),
      sessions: () => this.#clearSessions(),
      ...Object.fromEntries(dead.map(table => [table, () => this.#clear(table)])),
      subject_epochs: () => this.#clearEpochs(),
    }
  }

  async #retire() {
    this.#cursor = await retireOutlivedKeys(this.#services, this.#cursor)
  }

  /** The embedded database serves one process, and has no transaction that stays open. */
  async #countDeadRows() {
    const { db, metrics } = this.#services
    if (db.kind === 'postgres') metrics.deadRows = (await countDeadRows(db, {}))[0]!.dead
  }

  async #clear(table: keyof typeof DEAD): Promise<number> {
    let removed = 0
    for (let batch = 0; !this.#stopped; removed += batch) {
      batch = await deleteDead(this.#services.db, table)
      if (isWhole(batch)) return removed + batch
    }
    return removed
  }

  async #clearEpochs(): Promise<number> {
    let removed = 0
    while (!this.#stopped) {
      const [batch] = await deleteUnneededEpochs(this.#services.db, {})
      removed += batch!.deleted
      if (isWhole(batch!.due)) break
    }
    return removed
  }

  /** Continues where the last round ended, and reads each session at most once. */
  async #clearSessions(): Promise<number> {
    let removed = 0
    for (let windows = 0; windows < MAX_SESSION_WINDOWS && !this.#stopped; windows++) {
      const from = this.#sessionCursor
      const [window] = await deleteDeadSessions(this.#services.db, from)
      removed += window!.removed
      this.#sessionCursor = window!.next ?? FIRST_SESSION
      if (window!.next === null && from === FIRST_SESSION) break
    }
    return removed
  }

  async stop(): Promise<void> {
    this.#stopped = true
    clearInterval(this.#timer)
    await this.#round
  }
}
