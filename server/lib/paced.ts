/** Runs one call per interval, in the order of arrival, so that background work uses little of the machine. */
export class Paced {
  readonly #interval: number
  readonly #waiting = new Set<() => void>()
  #timer: NodeJS.Timeout | undefined

  /** Milliseconds. */
  constructor(interval: number) {
    this.#interval = interval
  }

  add(work: () => void) {
    this.#waiting.add(work)
    this.#timer ??= setInterval(() => this.#next(), this.#interval)
  }

  /** Cancels the call if it has not run. */
  remove(work: () => void) {
    this.#waiting.delete(work)
  }

  #next() {
    const [work] = this.#waiting
    if (work) {
      this.#waiting.delete(work)
      return work()
    }
    clearInterval(this.#timer)
    this.#timer = undefined
  }
}
