import { Unavailable } from './errors.ts'

/** A verdict isn't possible yet: it needs a poll of the change feed, the record of a customer, or a signature. */
export type Waiting = { wait: () => Promise<unknown> }

export const isWaiting = (verdict: object | undefined): verdict is Waiting =>
  verdict !== undefined && 'wait' in verdict

/**
 * The most waits for one verdict: for the lease, a record, a signature, and the record again if a key has just begun
 * to sign. If more are needed, the state keeps changing.
 */
const MAX_WAITS = 6

/**
 * Repeats `judge` until it needs to wait for nothing more. `judge` is synchronous, with no await between its
 * check that the state is fresh and its verdict, so a verdict is true of one moment. Throws Unavailable after
 * MAX_WAITS waits.
 */
export async function whenReady<Verdict extends object | undefined>(
  judge: () => Verdict | Waiting,
): Promise<Verdict> {
  for (let waited = 0; waited < MAX_WAITS; waited++) {
    const verdict = judge()
    if (!isWaiting(verdict)) return verdict
    await verdict.wait()
  }
  throw new Unavailable('the state changed during every attempt', 'changing')
}
