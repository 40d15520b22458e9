import { makePartitions } from '../db/audit.ts'
import { sweepErased } from '../db/directory.ts'
import { DEAD, deleteDead, isWhole } from '../db/maintenance.ts'
import type { Querier } from '../db/revocations.ts'
import type { Log } from './log.ts'
import type { Retirement } from './retirement.ts'
import type { Secrets } from './secrets.ts'

/** Between two rounds (ms). */
const EVERY = 60_000

export interface MaintenanceOptions {
  db: Querier
  retirement: Retirement
  secrets: Secrets
  /** Seconds; 0: secrets are rotated only when somebody asks. */
  keyMaxAge: number
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
      await run().catch(error =>
        this.#options.log.warn(
          { err: error, job },
          'a job of maintenance failed; the next round tries again',
        ),
      )
    }
  }

  #jobs(): Record<string, () => Promise<unknown>> {
    const { db, retirement, secrets, keyMaxAge } = this.#options
    const dead = Object.keys(DEAD) as (keyof typeof DEAD)[]
    return {
      partitions: () => makePartitions(db),
      retire: () => retirement.pass(),
      erased: () => sweepErased(db),
      ...(keyMaxAge > 0 && { rotate: () => secrets.rotateAged(keyMaxAge) }),
      ...Object.fromEntries(dead.map(table => [table, () => this.#clear(table)])),
    }
  }

  async #clear(table: keyof typeof DEAD) {
    while (!this.#stopped && !isWhole(await deleteDead(this.#options.db, table)));
  }

  async stop(): Promise<void> {
    this.#stopped = true
    clearInterval(this.#timer)
    await this.#round
  }
}
