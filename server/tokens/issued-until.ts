import type { Database } from '../../db/client.ts'
import { raiseIssuedUntil } from '../../db/queries/issued-until.ts'
import type { ConcurrencyLimit } from '../lib/concurrency-limit.ts'
import { Unavailable } from '../lib/errors.ts'
import type { Log } from '../lib/logger.ts'
import type { Settings } from './policy.ts'

/** One repetition is normally enough. A second one is needed if the customer's policy was changed in between. */
const MAX_ATTEMPTS = 3

/** The columns that every statement that issues tokens answers. */
interface IssuingRow {
  refused?: string | null
  outcome?: string
  /** Whether `issued_until` should be raised soon, although this token was issued. */
  raiseDue: boolean
}

/** A row of a statement that needed no repetition. */
export type Covered<Row> = Row &
  (Row extends { outcome: unknown }
    ? { outcome: Exclude<Row['outcome'], 'uncovered'> }
    : Row extends { refused: unknown }
      ? { refused: Exclude<Row['refused'], 'uncovered'> }
      : unknown)

export interface IssuedUntilOptions {
  db: Database
  /** The statements of one customer take turns here. */
  turns: ConcurrencyLimit
  config: Pick<Settings, 'maxAccessTokenTtl'>
  log: Log
}

/** Keeps every customer's `issued_until` ahead of the tokens that it is issued (db/queries/issued-until.ts). */
export class IssuedUntil {
  readonly #options: IssuedUntilOptions
  /** Raises that have not been committed yet, by customer. */
  readonly #raising = new Map<string, Promise<unknown>>()

  constructor(options: IssuedUntilOptions) {
    this.#options = options
  }

  /**
   * Runs a statement that issues a token to a customer, and repeats it if the customer's `issued_until` had to be raised first.
   * `issue` must not hold a turn while it is not running: a raise takes one. Throws Unavailable.
   */
  async cover<Row extends IssuingRow>(
    customerId: string,
    issue: () => Promise<Row | undefined>,
  ): Promise<Covered<Row> | undefined> {
    for (let attempt = 0; attempt < MAX_ATTEMPTS; attempt++) {
      const row = await issue()
      if (isCovered(row)) {
        if (row?.raiseDue) this.#raiseInBackground(customerId)
        return row
      }
      await this.#raise(customerId)
    }
    throw new Unavailable("issue: the customer's policy changed during every attempt", 'changing')
  }

  /** Joins the raise that is under way. If that one is too early for the caller, the caller's next attempt raises again. */
  #raise(customerId: string): Promise<unknown> {
    const current = this.#raising.get(customerId)
    if (current) return current
    const { db, turns, config } = this.#options
    const { maxAccessTokenTtl } = config
    const raising = turns
      .run(customerId, () => raiseIssuedUntil(db, { customerId, maxAccessTokenTtl }))
      .finally(() => this.#raising.delete(customerId))
    this.#raising.set(customerId, raising)
    return raising
  }

  #raiseInBackground(customerId: string) {
    if (this.#raising.has(customerId)) return
    this.#raise(customerId).catch(error =>
      this.#options.log.warn(
        { err: error, customerId },
        'issued_until of a customer could not be updated; its next token retries it',
      ),
    )
  }
}

const isCovered = <Row extends IssuingRow>(row: Row | undefined): row is Covered<Row> | undefined =>
  row?.refused !== 'uncovered' && row?.outcome !== 'uncovered'
