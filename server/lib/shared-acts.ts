/**
 * Runs one act of each key at a time. Calls that arrive during an act share the next one, which begins after all of
 * them, so any number of concurrent calls costs two acts.
 */
export class SharedActs<Result> {
  readonly #running = new Map<string, Promise<Result>>()
  /** Acts that have not begun. */
  readonly #next = new Map<string, Promise<Result>>()

  run(key: string, act: () => Promise<Result>): Promise<Result> {
    const next = this.#next.get(key)
    if (next) return next
    const running = this.#running.get(key)
    if (!running) return this.#begin(key, act)
    const after = this.#runAfter(running, key, act)
    this.#next.set(key, after)
    return after
  }

  #begin(key: string, act: () => Promise<Result>): Promise<Result> {
    const running = act().finally(() => this.#running.delete(key))
    this.#running.set(key, running)
    return running
  }

  async #runAfter(running: Promise<Result>, key: string, act: () => Promise<Result>): Promise<Result> {
    await running.catch(() => {}) // Its own callers get the error.
    this.#next.delete(key)
    return this.#begin(key, act)
  }
}
