import { RateLimitedError } from './errors.ts'

/**
 * Lets so many through at a time and so many wait; the rest are refused at once. A password's hash takes 19 MiB and a core
 * for tens of milliseconds: without a limit, a flood of logins would take the machine from everyone else.
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
    // Whoever leaves hands its place on, so that nobody slips in between.
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
