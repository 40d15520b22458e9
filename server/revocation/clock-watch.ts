import type { Database } from '../../db/client.ts'
import {
  type ClockObservation,
  type ClockState,
  confirmClock,
  findClock,
  observeClock,
} from '../../db/queries/database-clock.ts'
import { type AuditContext, MAINTENANCE } from '../audit/audit.ts'
import type { Clock } from '../lib/clock.ts'
import { ApiError } from '../lib/errors.ts'
import type { Log } from '../lib/logger.ts'

export type { ClockState } from '../../db/queries/database-clock.ts'

interface ClockWatchOptions {
  db: Database
  clock: Clock
  log: Log
}

const JUMPED =
  "the database's clock jumped, so nothing is deleted until heldUntil: compare it with the correct time, fix it if it is wrong, then run `assay clock confirm` (docs/operating.md, AssayClockJumped)"
const TRUSTED = "the database's clock is trusted again; maintenance deletes expired rows again"
const NOT_HELD = 'no clock jump holds deletion until this time; read GET /admin/clock again'

/**
 * Compares the database's clock with a monotonic one. After a jump nothing is deleted by the database's clock for 24 hours, or
 * until an operator has confirmed it. The rule is in db/queries/database-clock.ts, and every deletion checks it in its own
 * statement.
 */
export class ClockWatch {
  readonly #options: ClockWatchOptions
  #heldUntil = 0

  constructor(options: ClockWatchOptions) {
    this.#options = options
  }

  /** Whether deletion was held at this replica's last observation. */
  get isHeld() {
    return this.#heldUntil > 0
  }

  /** Throws if the database doesn't answer, or lacks the row in which observations are stored. */
  async observe(): Promise<void> {
    const { db, clock } = this.#options
    const { id, reading } = clock.boot()
    const wall = Math.round(clock.wall())
    const [seen] = await observeClock(db, { ...MAINTENANCE, id, reading: Math.round(reading), wall })
    if (!seen) throw new Error('assay.database_clock has no row')
    this.#note(seen)
  }

  #note({ heldUntil, jumpedAt, jump }: ClockObservation) {
    const until = heldUntil?.getTime() ?? 0
    if (until === this.#heldUntil) return
    this.#heldUntil = until
    const { log } = this.#options
    if (heldUntil === null) log.info(TRUSTED)
    else log.error({ seconds: Math.round(jump! / 1000), jumpedAt, heldUntil }, JUMPED)
  }

  /** Reads the state from the database. */
  async find(): Promise<ClockState> {
    const [state] = await findClock(this.#options.db, {})
    return state!
  }

  /** Ends the hold that lasts until `heldUntil`. Throws `conflict` if there is no hold, or another one. */
  async confirm(heldUntil: Date, context: AuditContext): Promise<void> {
    const [confirmed] = await confirmClock(this.#options.db, { ...context, heldUntil })
    if (!confirmed) throw new ApiError('conflict', NOT_HELD)
    this.#note({ jumped: false, heldUntil: null, jumpedAt: null, jump: null })
  }
}
