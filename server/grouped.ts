import { Unavailable } from './errors.ts'

/** Items of one statement at most, and waiting for one. */
const MOST = 100
const MOST_WAITING = 10_000

interface Waiting<Item, Result> {
  item: Item
  resolve(result: Result): void
  reject(error: unknown): void
}

/**
 * Lets what comes together share a statement, and so a commit: while one is under way the rest collects. Without load
 * nobody waits for anybody. A statement that fails fails for all that shared it.
 */
export class Grouped<Item, Result> {
  readonly #run: (items: Item[]) => Promise<Result[]>
  readonly #waiting: Waiting<Item, Result>[] = []
  #running = false

  /** `run` answers one result for each item, in order. */
  constructor(run: (items: Item[]) => Promise<Result[]>) {
    this.#run = run
  }

  async add(item: Item): Promise<Result> {
    if (this.#waiting.length >= MOST_WAITING)
      throw new Unavailable('more acts wait than can be done in time', 'busy')
    return new Promise((resolve, reject) => {
      this.#waiting.push({ item, resolve, reject })
      if (!this.#running) void this.#drain()
    })
  }

  async #drain() {
    this.#running = true
    while (this.#waiting.length > 0) await this.#settle(this.#waiting.splice(0, MOST))
    this.#running = false
  }

  async #settle(group: Waiting<Item, Result>[]) {
    try {
      const results = await this.#run(group.map(({ item }) => item))
      for (const [i, { resolve }] of group.entries()) resolve(results[i]!)
    } catch (error) {
      // Where the database doesn't answer, who waits behind would wait once more for each group before it.
      const behind = error instanceof Unavailable ? this.#waiting.splice(0) : []
      for (const { reject } of [...group, ...behind]) reject(error)
    }
  }
}
