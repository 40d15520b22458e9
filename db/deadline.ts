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
