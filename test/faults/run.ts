import { parseArgs } from 'node:util'
import { runTable } from './table.ts'

/** `npm run faults -- [--runs 10] [--only part-of-a-name] [--held 60] [--write]`: docs/faults.md says what it does. */

const { values } = parseArgs({
  options: {
    runs: { type: 'string', default: '10' },
    only: { type: 'string', default: '' },
    replicas: { type: 'string', default: '3' },
    held: { type: 'string', default: '60' },
    write: { type: 'boolean', default: false },
  },
})

const { runs, only, replicas, held, write } = values
const problems = await runTable({
  runs: Number(runs),
  only,
  replicas: Number(replicas),
  held: Number(held) * 1_000,
  write,
})
process.exit(problems === 0 ? 0 : 1)
