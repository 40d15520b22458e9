import { Unavailable } from '../server/lib/errors.ts'

/**
 * Returns the promise's outcome, or calls `onLate` and throws Unavailable after `deadline` milliseconds. A
 * late outcome is dropped.
 */
export async function within<Result>(
  deadline: number,
  promise: Promise<Result>,
  onLate: () => void,
): Promise<Result> {
  const late = Promise.withResolvers<never>()
  const giveUp = () => {
    onLate()
    late.reject(new Unavailable(`database: no answer within ${deadline} ms`, 'database'))
  }
  let given: NodeJS.Immediate | undefined
  // Timers run before sockets are read. setImmediate lets an answer that arrived while this process was
  // paused win.
  const timer = setTimeout(() => {
    given = setImmediate(giveUp)
  }, deadline)
  try {
    return await Promise.race([promise, late.promise])
  } finally {
    clearTimeout(timer)
    clearImmediate(given)
  }
}

/** Calls that begin within this time of each other share a timer (ms), so a call may end that much too late. */
const GROUP_MS = 20

/**
 * The last part of a deadline has a separate timer (ms). postgres.js sends a statement only at the end of an event loop turn. If
 * the process was blocked until the deadline, the statement is sent after the first timer has fired, and is answered before the
 * second one fires.
 */
const GRACE_MS = 50

/** A call with a deadline, and the group of calls that share its timer. */
export interface Timed<Call> {
  group?: Set<Call>
}

/**
 * Calls `onLate` for calls that take longer than `deadline` milliseconds. They share timers, because a timer for each call
 * would be a large part of the cost of a call.
 */
export class Deadlines<Call extends Timed<Call>> {
  readonly #deadline: number
  readonly #onLate: (call: Call) => void
  #group: Set<Call> | undefined
  #size = 0

  constructor(deadline: number, onLate: (call: Call) => void) {
    this.#deadline = deadline
    this.#onLate = onLate
  }

  /** The number of calls that are neither finished nor late. */
  get size() {
    return this.#size
  }

  add(call: Call) {
    this.#group ??= this.#newGroup()
    call.group = this.#group.add(call)
    this.#size++
  }

  delete(call: Call) {
    if (call.group?.delete(call)) this.#size--
  }

  #newGroup(): Set<Call> {
    const group = new Set<Call>()
    setTimeout(() => {
      this.#group = undefined
    }, GROUP_MS).unref()
    // setImmediate lets the event loop read answers that have already arrived.
    const end = () => setImmediate(() => this.#end(group))
    setTimeout(() => setTimeout(end, GRACE_MS).unref(), this.#deadline + GROUP_MS - GRACE_MS).unref()
    return group
  }

  #end(group: Set<Call>) {
    for (const call of group) {
      this.delete(call)
      this.#onLate(call)
    }
  }
}
