import { dropOldEvents, makePartitions } from '../db/queries/audit-partitions.ts'
import type { Querier } from '../db/queries/change-feed.ts'
import { DEAD, deleteDead, isWhole } from '../db/queries/maintenance.ts'
import { isFirst } from '../db/queries/replicas.ts'
import type { CustomerAdmin } from './customers/admin.ts'
import type { KeyRetirement } from './keys/retirement.ts'
import type { KeyRotation } from './keys/rotation.ts'
import type { Log } from './lib/logger.ts'
import type { JobOutcome } from './lib/metrics.ts'

/** Between two rounds (ms). */
const INTERVAL_MS = 60_000

export interface MaintenanceOptions {
  db: Querier
  /** This process's name among the replicas. */
  replica: string
  keyRetirement: KeyRetirement
  keyRotation: KeyRotation
  customerAdmin: Pick<CustomerAdmin, 'sweep'>
  /** Default key age in seconds for customers without their own. 0 disables automatic rotation for them. */
  keyMaxAge: number
  /** Seconds. */
  auditRetention: number
  /**
   * Called after each job with its outcome (`skipped`: another replica runs it) and the number of rows
   * removed.
   */
  ran(job: string, outcome: JobOutcome, removed: number): void
  log: Log
}

/**
 * Runs the background jobs. One replica runs them for the whole installation, in small batches. If two
 * replicas run them at once, each skips rows that the other has locked. The next round retries a failed job.
 */
export class Maintenance {
  readonly #options: MaintenanceOptions
  #timer: NodeJS.Timeout | undefined
  #round: Promise<void> | undefined
  #stopped = false

  constructor(options: MaintenanceOptions) {
    this.#options = options
  }

  start() {
    this.#timer = setInterval(() => {
      this.#round ??= this.run().finally(() => {
        this.#round = undefined
      })
    }, INTERVAL_MS)
  }

  /** One round, now. Doesn't throw. */
  async run(): Promise<void> {
    const ours = await this.#isOurs()
    for (const [job, run] of Object.entries(this.#jobs())) {
      if (this.#stopped) return
      if (ours) await this.#do(job, run)
      else this.#options.ran(job, 'skipped', 0)
    }
  }

  /**
   * Whether this replica runs the jobs. True if the database doesn't answer: the jobs then report the error.
   */
  async #isOurs(): Promise<boolean> {
    const { db, replica } = this.#options
    const rows = await isFirst(db, { replica }).catch(() => undefined)
    return rows?.[0]?.first ?? true
  }

  async #do(job: string, run: () => Promise<unknown>) {
    const { log, ran } = this.#options
    try {
      const removed = await run()
      ran(job, 'ok', typeof removed === 'number' ? removed : 0)
    } catch (error) {
      ran(job, 'failed', 0)
      log.warn({ err: error, job }, 'a job of maintenance failed; the next round tries again')
    }
  }

  /** Returns the jobs by name. A job that deletes rows returns their number. */
  #jobs(): Record<string, () => Promise<unknown>> {
    const { db, customerAdmin, keyRetirement, keyRotation, keyMaxAge, auditRetention } = this.#options
    const dead = Object.keys(DEAD) as (keyof typeof DEAD)[]
    return {
      partitions: () => makePartitions(db).then(() => {}),
      audit: () => dropOldEvents(db, auditRetention),
      retire: () => keyRetirement.sweep(),
      erased: () => customerAdmin.sweep(),
      rotate: () => keyRotation.rotateAged(keyMaxAge),
      ...Object.fromEntries(dead.map(table => [table, () => this.#clear(table)])),
    }
  }

  async #clear(table: keyof typeof DEAD): Promise<number> {
    let removed = 0
    for (let batch = 0; !this.#stopped; removed += batch) {
      batch = await deleteDead(this.#options.db, table)
      if (isWhole(batch)) return removed + batch
    }
    return removed
  }

  async stop(): Promise<void> {
    this.#stopped = true
    clearInterval(this.#timer)
    await this.#round
  }
}
