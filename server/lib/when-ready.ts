import { Unavailable } from './errors.ts'

/** What must be waited for before a verdict: a poll of the change feed, or the record of a customer. */
export type Waiting = { wait: () => Promise<unknown> }

export const isWaiting = (verdict: object | undefined): verdict is Waiting =>
  verdict !== undefined && 'wait' in verdict

/** How often a verdict may need something more. Each wait brings what it names; more than two are a race with changes. */
const MAX_WAITS = 4

/**
 * Judges, and judges again after each thing waited for. A verdict is synchronous, with no await between the freshness of
 * the state and what is said of it: an answer is true of one moment. Throws Unavailable when that moment doesn't come.
 */
export async function whenReady<Verdict extends object | undefined>(
  judge: () => Verdict | Waiting,
): Promise<Verdict> {
  for (let waited = 0; waited < MAX_WAITS; waited++) {
    const verdict = judge()
    if (!isWaiting(verdict)) return verdict
    await verdict.wait()
  }
  throw new Unavailable('the state changed at every look', 'changing')
}
