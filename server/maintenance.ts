import { dropOldEvents, makePartitions } from '../db/audit_partitions.ts'
import { DEAD, deleteDead, isWhole } from '../db/maintenance.ts'
import type { Querier } from '../db/revocations.ts'
import type { Directory } from './directory.ts'
import type { Log } from './log.ts'
import type { Retirement } from './retirement.ts'
import type { Secrets } from './secrets.ts'

/** Between two rounds (ms). */
const EVERY = 60_000

export interface MaintenanceOptions {
  db: Querier
  retirement: Retirement
  secrets: Secrets
  directory: Pick<Directory, 'sweep'>
  /** Seconds, for customers whose policy has none; 0: their secrets are rotated only when somebody asks. */
  keyMaxAge: number
  /** Seconds. */
  auditRetention: number
  /** Told of each job that was run: whether it went well, and how many rows went, if it removes some. */
  ran(job: string, outcome: 'ok' | 'failed', removed: number): void
  log: Log
}

/**
 * What must happen though nobody asks. Every replica does it, in small batches; rows that another is at are passed over,
 * and a job that fails is made up for by the next round.
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
    }, EVERY)
  }

  /** One round, now. Doesn't throw. */
  async run(): Promise<void> {
    for (const [job, run] of Object.entries(this.#jobs())) {
      if (this.#stopped) return
      await this.#do(job, run)
    }
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

  /** Each answers how many rows it removed, where it removes some. */
  #jobs(): Record<string, () => Promise<unknown>> {
    const { db, directory, retirement, secrets, keyMaxAge, auditRetention } = this.#options
    const dead = Object.keys(DEAD) as (keyof typeof DEAD)[]
    return {
      partitions: () => makePartitions(db).then(() => {}),
      audit: () => dropOldEvents(db, auditRetention),
      retire: () => retirement.pass(),
      erased: () => directory.sweep(),
      rotate: () => secrets.rotateAged(keyMaxAge),
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
