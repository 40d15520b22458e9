import { randomInt } from 'node:crypto'
import { runHistory } from './histories/run.ts'
import { runKills } from './kills/report.ts'
import { parseOptions } from './options.ts'
import { runPatroni } from './patroni/run.ts'
import { runRotations } from './rotations/report.ts'
import { runTable } from './table.ts'

const USAGE = `usage: npm run faults -- [options]

  (no option)           every fault of the table
    --runs N            runs of each fault, default 10
    --only TEXT         only faults with TEXT in their names
    --held SECONDS      how long the open transaction stays open, default 60
    --write             also write the table into docs/faults.md
  --history SECONDS     instead: random clients and faults
    --seed N            repeat the run with this seed
  --kills N             instead: kill servers N times with -9 while they work
    --postgres-kills N  also kill Postgres N times
  --rotations N         instead: rotate a customer's secrets N times under load
  --patroni             instead: faults of a Patroni cluster, with --runs,
                        --only and --write as above
    --etcd3             Patroni uses the v3 API of etcd (see docs/patroni.md)
  --replicas N          servers in the tables and the history, default 3

docs/faults.md describes each of them, what it needs, and the results. The exit
code is 1 if a promise was broken.`

const { values } = parseOptions('faults', {
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
  patroni: { type: 'boolean', default: false },
  etcd3: { type: 'boolean', default: false },
  help: { type: 'boolean', short: 'h', default: false },
})

/** Runs the selected drill. Returns the number of problems. */
function chosen(): Promise<number> {
  const { runs, only, held, write, history, seed, kills, rotations } = values
  const replicas = Number(values.replicas)
  if (history !== undefined) return runHistory({ seconds: Number(history), seed: Number(seed), replicas })
  if (kills !== undefined) return runKills(Number(kills), Number(values['postgres-kills']))
  if (rotations !== undefined) return runRotations(Number(rotations))
  const table = { runs: Number(runs), only, replicas, write }
  if (values.patroni) return runPatroni({ ...table, dcs: values.etcd3 ? 'etcd3' : 'etcd' })
  return runTable({ ...table, held: Number(held) * 1_000 })
}

if (values.help) {
  process.stdout.write(`${USAGE}\n`)
  process.exit(0)
}
// Exit handlers end every process that was started.
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => process.exit(1))
process.exit((await chosen()) === 0 ? 0 : 1)
