import { randomInt } from 'node:crypto'
import { parseArgs } from 'node:util'
import { runHistory } from './histories/run.ts'
import { runTable } from './table.ts'

/**
 * `npm run faults`; docs/faults.md says what it does.
 * `[--runs 10] [--only part-of-a-name] [--held 60] [--write]`: every fault so often.
 * `--history SECONDS [--seed S]`: clients and faults at random, judged by the promises.
 */

const { values } = parseArgs({
  options: {
    runs: { type: 'string', default: '10' },
    only: { type: 'string', default: '' },
    replicas: { type: 'string', default: '3' },
    held: { type: 'string', default: '60' },
    write: { type: 'boolean', default: false },
    history: { type: 'string' },
    seed: { type: 'string', default: String(randomInt(2 ** 31)) },
  },
})

/** Answers the number of problems. */
function chosen(): Promise<number> {
  const { runs, only, held, write, history, seed } = values
  const replicas = Number(values.replicas)
  if (history !== undefined) return runHistory({ seconds: Number(history), seed: Number(seed), replicas })
  return runTable({ runs: Number(runs), only, replicas, held: Number(held) * 1_000, write })
}

process.exit((await chosen()) === 0 ? 0 : 1)
