import { Unavailable } from '../server/lib/errors.ts'

/** The promise's outcome, or Unavailable after `deadline` milliseconds, when `onLate` is called. A late outcome is dropped. */
export async function within<Result>(
  deadline: number,
  promise: Promise<Result>,
  onLate: () => void,
): Promise<Result> {
  let timer: NodeJS.Timeout | undefined
  let given: NodeJS.Immediate | undefined
  const late = new Promise<never>((_, reject) => {
    const giveUp = () => {
      onLate()
      reject(new Unavailable(`database: no answer within ${deadline} ms`, 'database'))
    }
    // What arrived while this process stood still is read first, and timers run before that.
    timer = setTimeout(() => {
      given = setImmediate(giveUp)
    }, deadline)
  })
  try {
    return await Promise.race([promise, late])
  } finally {
    clearTimeout(timer)
    clearImmediate(given)
  }
}

/**
 * Ends calls that take longer than `deadline` milliseconds, with one timer for all of them: a timer each would cost more than
 * all the rest of a call does. All have the same deadline, so they end in the order in which they began.
 */
export class Deadlines<Call extends { startedAt: number }> {
  readonly #deadline: number
  readonly #onLate: (call: Call) => void
  readonly #calls = new Set<Call>()
  #isArmed = false

  constructor(deadline: number, onLate: (call: Call) => void) {
    this.#deadline = deadline
    this.#onLate = onLate
  }

  get size() {
    return this.#calls.size
  }

  add(call: Call) {
    this.#calls.add(call)
    if (!this.#isArmed) this.#arm(this.#deadline)
  }

  /** False: it was ended before. */
  delete(call: Call): boolean {
    return this.#calls.delete(call)
  }

  #arm(milliseconds: number) {
    this.#isArmed = true
    // What arrived while this process stood still is read first, and timers run before that.
    setTimeout(() => setImmediate(this.#endLate), milliseconds).unref()
  }

  #endLate = () => {
    this.#isArmed = false
    const latest = performance.now() - this.#deadline
    for (const call of this.#calls) {
      if (call.startedAt > latest) return this.#arm(Math.ceil(call.startedAt - latest))
      this.#calls.delete(call)
      this.#onLate(call)
    }
  }
}
