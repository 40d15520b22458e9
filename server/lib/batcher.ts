import { setImmediate as turn } from 'node:timers/promises'
import type { Database } from '../../db/client.ts'
import { DatabaseError } from '../../db/errors.ts'
import { Unavailable } from './errors.ts'
import { served, serving } from './tracing.ts'

/** Limits on the acts of one statement, and on those that wait. */
const MAX_BATCH = 100
const MAX_QUEUED = 10_000

interface Waiting<Item, Result> {
  item: Item
  /** The requests that are traced with this act. */
  served: ReturnType<typeof served>
  resolve(result: Result): void
  reject(error: unknown): void
}

export interface BatcherOptions {
  database: Pick<Database, 'kind'>
  /** Statements under way at once on Postgres, so that one is prepared while another waits for its commit. */
  concurrency?: number
}

/**
 * Concurrent acts share a statement, and so a commit: while `concurrency` statements are under way, further acts collect. A
 * statement that the database can't answer fails for all acts that shared it. One that it refuses is repeated for each act
 * alone, so that no act fails because of another.
 *
 * The embedded database runs statements on this thread, and no socket is read while one runs. Two statements under way would
 * follow one another without a turn of the event loop between them, each with the one act that the other's answer brought.
 * So there it is one statement at a time, and each begins a turn after it became due, with all that was read in that turn.
 */
export class Batcher<Item, Result> {
  readonly #run: (items: Item[]) => Promise<Result[]>
  readonly #embedded: boolean
  readonly #concurrency: number
  readonly #waiting: Waiting<Item, Result>[] = []
  #running = 0

  /** `run` answers one result for each item, in order. */
  constructor(run: (items: Item[]) => Promise<Result[]>, { database, concurrency = 1 }: BatcherOptions) {
    this.#run = run
    this.#embedded = database.kind === 'embedded'
    this.#concurrency = this.#embedded ? 1 : concurrency
  }

  async add(item: Item): Promise<Result> {
    if (this.#waiting.length >= MAX_QUEUED)
      throw new Unavailable('more acts wait than can be done in time', 'busy')
    return new Promise((resolve, reject) => {
      this.#waiting.push({ item, served: served(), resolve, reject })
      if (this.#running < this.#concurrency) void this.#drain()
    })
  }

  async #drain() {
    this.#running++
    while (this.#waiting.length > 0) {
      if (this.#embedded) await turn()
      await this.#flushGroup(this.#waiting.splice(0, MAX_BATCH))
    }
    this.#running--
  }

  async #flushGroup(group: Waiting<Item, Result>[]): Promise<void> {
    try {
      const requests = group.flatMap(waiting => waiting.served)
      const results = await serving(requests, () => this.#run(group.map(({ item }) => item)))
      for (const [i, { resolve }] of group.entries()) resolve(results[i]!)
    } catch (error) {
      if (error instanceof DatabaseError && group.length > 1) return this.#flushEach(group)
      // If the database doesn't answer, each further group would take another deadline to find that out.
      const behind = error instanceof Unavailable ? this.#waiting.splice(0) : []
      for (const { reject } of [...group, ...behind]) reject(error)
    }
  }

  async #flushEach(group: Waiting<Item, Result>[]) {
    for (const one of group) await this.#flushGroup([one])
  }
}

/** One for each of `many` acts, in order: the row that has its number, if one has. */
export function byNumber<Row extends { n: number }>(rows: Row[], many: number): (Row | undefined)[] {
  const found: (Row | undefined)[] = Array(many).fill(undefined)
  for (const row of rows) found[row.n] = row
  return found
}
