import { setImmediate as turn } from 'node:timers/promises'
import type { Database } from '../../db/client.ts'
import { DatabaseError } from '../../db/errors.ts'
import { Unavailable } from './errors.ts'
import { FairQueue } from './fair-queue.ts'
import { served, serving } from './tracing.ts'

/** Limits on the acts in one statement, and on the acts that are queued. */
const MAX_BATCH = 100
const MAX_QUEUED = 10_000

interface Waiting<Item, Result> {
  item: Item
  /** The requests whose traces include this act. */
  served: ReturnType<typeof served>
  resolve(result: Result): void
  reject(error: unknown): void
}

export interface BatcherOptions<Item> {
  database: Pick<Database, 'kind'>
  /** Concurrent statements on Postgres, so that one can start while another waits for its commit. */
  concurrency?: number
  /** Returns the customer that an act belongs to. */
  owner(item: Item): string
}

/**
 * Batches concurrent acts into one statement, and so into one commit: while `concurrency` statements are
 * running, further acts are queued. If the database doesn't answer a statement, all of its acts fail. If the
 * database rejects it, each act is repeated alone, so that no act fails because of another.
 *
 * The embedded database runs statements on this thread, which reads no sockets while one runs. Two concurrent
 * statements would alternate without a turn of the event loop between them, each with the single act that
 * followed the other's answer. So the embedded database gets one statement at a time, and each starts one
 * turn late, with every act read in that turn.
 *
 * The queued acts of one customer wait behind each other: a statement takes one act of each customer in turn. If the queue
 * is full, the customer with most acts in it loses its newest.
 */
export class Batcher<Item, Result> {
  readonly #run: (items: Item[]) => Promise<Result[]>
  readonly #embedded: boolean
  readonly #concurrency: number
  readonly #owner: (item: Item) => string
  readonly #waiting = new FairQueue<Waiting<Item, Result>>()
  #running = 0

  /** `run` returns one result for each item, in order. */
  constructor(
    run: (items: Item[]) => Promise<Result[]>,
    { database, concurrency = 1, owner }: BatcherOptions<Item>,
  ) {
    this.#run = run
    this.#owner = owner
    this.#embedded = database.kind === 'embedded'
    this.#concurrency = this.#embedded ? 1 : concurrency
  }

  async add(item: Item): Promise<Result> {
    const owner = this.#owner(item)
    if (this.#waiting.size >= MAX_QUEUED) this.#makeRoom(owner)
    return new Promise((resolve, reject) => {
      this.#waiting.push(owner, { item, served: served(), resolve, reject })
      if (this.#running < this.#concurrency) void this.#drain()
    })
  }

  /** Throws Unavailable if no customer has more acts in the queue than this one. */
  #makeRoom(owner: string) {
    const tooMany = new Unavailable('too many operations are waiting', 'busy')
    const newest = this.#waiting.takeFromLongest(owner)
    if (!newest) throw tooMany
    newest.reject(tooMany)
  }

  async #drain() {
    this.#running++
    while (this.#waiting.size > 0) {
      if (this.#embedded) await turn()
      await this.#flushGroup(this.#waiting.take(MAX_BATCH))
    }
    this.#running--
  }

  /** Returns false if the database did not answer. */
  async #flushGroup(group: Waiting<Item, Result>[]): Promise<boolean> {
    try {
      const requests = group.flatMap(waiting => waiting.served)
      const results = await serving(requests, () => this.#run(group.map(({ item }) => item)))
      for (const [i, { resolve }] of group.entries()) resolve(results[i]!)
      return true
    } catch (error) {
      if (error instanceof DatabaseError && group.length > 1) return this.#flushEach(group)
      // If the database doesn't answer, each further group would wait for its own timeout before failing.
      const answered = !(error instanceof Unavailable)
      const behind = answered ? [] : this.#waiting.take(this.#waiting.size)
      for (const { reject } of [...group, ...behind]) reject(error)
      return answered
    }
  }

  async #flushEach(group: Waiting<Item, Result>[]): Promise<boolean> {
    for (const [i, one] of group.entries()) {
      if (await this.#flushGroup([one])) continue
      const tooLate = new Unavailable('the database did not answer the previous operation', 'database')
      for (const { reject } of group.slice(i + 1)) reject(tooLate)
      return false
    }
    return true
  }
}

/** Returns the row of each of `many` acts, in order; undefined for an act without a row. */
export function byNumber<Row extends { n: number }>(rows: Row[], many: number): (Row | undefined)[] {
  const found: (Row | undefined)[] = Array(many).fill(undefined)
  for (const row of rows) found[row.n] = row
  return found
}
