import { RateLimitedError } from './errors.ts'

/**
 * Runs at most `abreast` calls at a time and queues at most `queue`; further calls are refused at once.
 * Hashing a password takes 19 MiB and a core for tens of milliseconds: without a limit, a flood of logins
 * would starve other requests.
 */
export class ConcurrencyLimit {
  readonly #abreast: number
  readonly #queue: number
  readonly #waiting: (() => void)[] = []
  #inside = 0

  constructor(abreast: number, queue: number) {
    this.#abreast = abreast
    this.#queue = queue
  }

  async run<Result>(run: () => Promise<Result>): Promise<Result> {
    if (this.#inside < this.#abreast) this.#inside++
    else if (this.#waiting.length >= this.#queue) throw new RateLimitedError(1)
    // A call that ends passes its slot to the first in the queue, so that a new call can't take it.
    else await new Promise<void>(resolve => this.#waiting.push(resolve))
    try {
      return await run()
    } finally {
      this.#leave()
    }
  }

  #leave() {
    const next = this.#waiting.shift()
    if (next) next()
    else this.#inside--
  }
}
