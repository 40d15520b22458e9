import { DatabaseError } from '../db/failures.ts'
import { Unavailable } from './errors.ts'

/** Items of one statement at most, and waiting for one. */
const MOST = 100
const MOST_WAITING = 10_000

interface Waiting<Item, Result> {
  item: Item
  resolve(result: Result): void
  reject(error: unknown): void
}

export interface GroupedOptions<Item> {
  /** Statements under way at once; what comes meanwhile collects. */
  abreast?: number
  /** Items of one key never share a statement. */
  keyOf?: (item: Item) => string
}

/**
 * Lets what comes together share a statement, and so a commit: while enough are under way the rest collects. Without load
 * nobody waits for anybody. One that the database can't answer fails for all that shared it; one that it refuses is done
 * again for each alone, so that nobody's act fails for another's.
 */
export class Grouped<Item, Result> {
  readonly #run: (items: Item[]) => Promise<Result[]>
  readonly #options: GroupedOptions<Item>
  #waiting: Waiting<Item, Result>[] = []
  #running = 0

  /** `run` answers one result for each item, in order. */
  constructor(run: (items: Item[]) => Promise<Result[]>, options: GroupedOptions<Item> = {}) {
    this.#run = run
    this.#options = options
  }

  async add(item: Item): Promise<Result> {
    if (this.#waiting.length >= MOST_WAITING)
      throw new Unavailable('more acts wait than can be done in time', 'busy')
    return new Promise((resolve, reject) => {
      this.#waiting.push({ item, resolve, reject })
      if (this.#running < (this.#options.abreast ?? 1)) void this.#drain()
    })
  }

  async #drain() {
    this.#running++
    while (this.#waiting.length > 0) await this.#settle(this.#take())
    this.#running--
  }

  /** Those that waited longest, of each key one. */
  #take(): Waiting<Item, Result>[] {
    const { keyOf } = this.#options
    if (!keyOf) return this.#waiting.splice(0, MOST)
    const group = new Map<string, Waiting<Item, Result>>()
    const left: Waiting<Item, Result>[] = []
    for (const one of this.#waiting) {
      const key = keyOf(one.item)
      if (group.size < MOST && !group.has(key)) group.set(key, one)
      else left.push(one)
    }
    this.#waiting = left
    return [...group.values()]
  }

  async #settle(group: Waiting<Item, Result>[]): Promise<void> {
    try {
      const results = await this.#run(group.map(({ item }) => item))
      for (const [i, { resolve }] of group.entries()) resolve(results[i]!)
    } catch (error) {
      if (error instanceof DatabaseError && group.length > 1)
        return void (await Promise.all(group.map(one => this.#settle([one]))))
      // Where the database doesn't answer, who waits behind would wait once more for each group before it.
      const behind = error instanceof Unavailable ? this.#waiting.splice(0) : []
      for (const { reject } of [...group, ...behind]) reject(error)
    }
  }
}

/** One for each of `many` acts, in order: the row that has its number, if one has. */
export function byNumber<Row extends { n: number }>(rows: Row[], many: number): (Row | undefined)[] {
  const found: (Row | undefined)[] = Array(many).fill(undefined)
  for (const row of rows) found[row.n] = row
  return found
}
