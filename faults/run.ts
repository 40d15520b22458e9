import { randomInt } from 'node:crypto'
import { parseArgs } from 'node:util'
import { runHistory } from './histories/run.ts'
import { runKills } from './kills/report.ts'
import { runRotations } from './rotations/report.ts'
import { runTable } from './table.ts'

/**
 * `npm run faults`; docs/faults.md says what it does.
 * `[--runs 10] [--only part-of-a-name] [--held 60] [--write]`: every fault so often.
 * `--history SECONDS [--seed S]`: clients and faults at random, judged by the promises.
 * `--kills 100 --postgres-kills 20`: servers and Postgres killed in the midst of acts.
 * `--rotations 20`: of both secrets of one customer, under load.
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
    kills: { type: 'string' },
    'postgres-kills': { type: 'string', default: '0' },
    rotations: { type: 'string' },
  },
})

/** Answers the number of problems. */
function chosen(): Promise<number> {
  const { runs, only, held, write, history, seed, kills, rotations } = values
  const replicas = Number(values.replicas)
  if (history !== undefined) return runHistory({ seconds: Number(history), seed: Number(seed), replicas })
  if (kills !== undefined) return runKills(Number(kills), Number(values['postgres-kills']))
  if (rotations !== undefined) return runRotations(Number(rotations))
  return runTable({ runs: Number(runs), only, replicas, held: Number(held) * 1_000, write })
}

// What it started ends with it, by its exit handlers.
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => process.exit(1))
process.exit((await chosen()) === 0 ? 0 : 1)
