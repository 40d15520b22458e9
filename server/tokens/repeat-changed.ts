import { Unavailable } from '../lib/errors.ts'

type Repeatable = { refused?: unknown; outcome?: unknown } | undefined

type Unchanged<Row> = Row extends { outcome: unknown }
  ? Row & { outcome: Exclude<Row['outcome'], 'changed'> }
  : Row

/** Each attempt takes a new snapshot. One more fails only if another statement changes the customer's row again. */
const MAX_ATTEMPTS = 4

/** So many attempts share statements with other acts. A later one runs alone, and waits for the customer's row. */
export const SHARED_ATTEMPTS = 2

/**
 * Repeats a statement that issued nothing because its customer's row was locked or changed by another. `n`: the number of
 * the attempt, from 0. Throws Unavailable after the last one.
 */
export async function repeatChanged<Row extends Repeatable>(
  run: (n: number) => Promise<Row>,
): Promise<Unchanged<Row>> {
  for (let n = 0; n < MAX_ATTEMPTS; n++) {
    const row = await run(n)
    if (row?.refused !== 'changed' && row?.outcome !== 'changed') return row as Unchanged<Row>
  }
  throw new Unavailable("issue: the customer's row changed at every attempt", 'changing')
}
