import { setImmediate as turn } from 'node:timers/promises'

/** Runs one call in each turn of the event loop, so that work which takes milliseconds doesn't delay all requests at once. */
export class OnePerTurn {
  #last: Promise<unknown> = Promise.resolve()

  /** Resolves with what `work` returns, or rejects with what it throws. */
  run<Result>(work: () => Result): Promise<Result> {
    const result = this.#last.then(async () => {
      await turn()
      return work()
    })
    this.#last = result.catch(() => {})
    return result
  }
}
