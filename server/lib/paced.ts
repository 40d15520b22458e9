/** Runs one call at each interval, in the order in which they came, so that work which nobody waits for takes little of the machine. */
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

  /** Takes back what has not run. */
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
