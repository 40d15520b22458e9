import { RateLimitedError, Unavailable } from './errors.ts'
import { FairQueue } from './fair-queue.ts'

/**
 * Runs at most `abreast` calls at a time and queues at most `queue`, and of one owner at most `queueOfOne`. Owners
 * take turns, so the queued calls of one owner wait behind each other. If the queue is full, the owner with the most
 * calls in it loses its newest, which throws RateLimitedError. If the database doesn't answer a call, the queued ones
 * fail too: each would wait for its own timeout.
 */
export class ConcurrencyLimit {
  readonly #abreast: number
  readonly #queue: number
  readonly #queueOfOne: number
  readonly #waiting = new FairQueue<{ start(): void; refuse(error: Error): void }>()
  #inside = 0

  constructor(abreast: number, queue: number, queueOfOne = queue) {
    this.#abreast = abreast
    this.#queue = queue
    this.#queueOfOne = queueOfOne
  }

  /** `owner`: the customer or address that the call belongs to. */
  async run<Result>(owner: string, run: () => Promise<Result>): Promise<Result> {
    if (this.#inside < this.#abreast) this.#inside++
    else await this.#turn(owner)
    try {
      return await run()
    } catch (error) {
      if (error instanceof Unavailable) this.#refuseAll(error)
      throw error
    } finally {
      this.#leave()
    }
  }

  /** Resolves with the slot of a call that has ended, so that a new call can't take it. */
  #turn(owner: string): Promise<void> {
    if (this.#waiting.countOf(owner) >= this.#queueOfOne) throw new RateLimitedError(1)
    if (this.#waiting.size >= this.#queue) this.#makeRoom(owner)
    return new Promise((start, reject) => {
      this.#waiting.push(owner, { start, refuse: reject })
    })
  }

  #makeRoom(owner: string) {
    const newest = this.#waiting.takeFromLongest(owner)
    if (!newest) throw new RateLimitedError(1)
    newest.refuse(new RateLimitedError(1))
  }

  #refuseAll(error: Unavailable) {
    for (const { refuse } of this.#waiting.take(this.#waiting.size)) refuse(error)
  }

  #leave() {
    const [next] = this.#waiting.take(1)
    if (next) next.start()
    else this.#inside--
  }
}
