import { RateLimitedError } from './errors.ts'

/** The most calls of one key that wait, and for how long (ms). */
const MAX_WAITING = 32
const MAX_WAIT_MS = 1_000

/** Runs one call of each key at a time; the next ones wait for their turn, in order. */
export class OnePerKey {
  /** By key, the calls that wait behind the one that runs. */
  readonly #waiting = new Map<string, (() => void)[]>()

  /** Throws RateLimitedError if too many calls wait, or this one has waited too long. */
  async run<Result>(key: string, run: () => Promise<Result>): Promise<Result> {
    const waiting = this.#waiting.get(key)
    if (waiting) await takeTurn(waiting)
    else this.#waiting.set(key, [])
    try {
      return await run()
    } finally {
      this.#leave(key)
    }
  }

  #leave(key: string) {
    const next = this.#waiting.get(key)?.shift()
    if (next) next()
    else this.#waiting.delete(key)
  }
}

function takeTurn(waiting: (() => void)[]): Promise<void> {
  if (waiting.length >= MAX_WAITING) throw new RateLimitedError(1, ONE_AT_A_TIME)
  return new Promise((resolve, reject) => {
    const enter = () => {
      clearTimeout(late)
      resolve()
    }
    const late = setTimeout(() => {
      waiting.splice(waiting.indexOf(enter), 1)
      reject(new RateLimitedError(1, ONE_AT_A_TIME))
    }, MAX_WAIT_MS)
    waiting.push(enter)
  })
}

const ONE_AT_A_TIME =
  'another request of this credential is still in progress; send one at a time, and try again in 1 s'
