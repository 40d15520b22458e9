import { makePartitions } from '../db/audit.ts'
import type { Querier } from '../db/revocations.ts'
import type { Log } from './log.ts'
import type { Secrets } from './secrets.ts'

/** Between two rounds (ms). */
const EVERY = 60_000

export interface MaintenanceOptions {
  db: Querier
  secrets: Secrets
  /** Seconds; 0: secrets are rotated only when somebody asks. */
  keyMaxAge: number
  log: Log
}

/**
 * What must happen though nobody asks. Every replica does it, in small batches that pass over what another is at; one
 * that fails is made up for by the next round.
 */
export class Maintenance {
  readonly #options: MaintenanceOptions
  #timer: NodeJS.Timeout | undefined
  #round: Promise<void> | undefined

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
    const { db, secrets, keyMaxAge, log } = this.#options
    const jobs = { partitions: () => makePartitions(db), secrets: () => secrets.maintain(keyMaxAge) }
    for (const [job, run] of Object.entries(jobs))
      await run().catch(error =>
        log.warn({ err: error, job }, 'a job of maintenance failed; the next round tries again'),
      )
  }

  async stop(): Promise<void> {
    clearInterval(this.#timer)
    await this.#round
  }
}
