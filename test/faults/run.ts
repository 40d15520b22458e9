import { arch, cpus } from 'node:os'
import { parseArgs } from 'node:util'
import { drill, type Outcome } from './drill.ts'
import type { Fault } from './fault.ts'
import { startPostgres } from './postgres.ts'
import { faults } from './rows.ts'
import { makeStage } from './stage.ts'

/** `npm run faults -- [--runs 10] [--only part-of-a-name] [--held 60]`: every fault so often, on a Postgres of our own. */

const { values } = parseArgs({
  options: {
    runs: { type: 'string', default: '10' },
    only: { type: 'string', default: '' },
    replicas: { type: 'string', default: '3' },
    held: { type: 'string', default: '60' },
  },
})

const say = (line: string) => process.stdout.write(`${line}\n`)

async function main() {
  const chosen = faults(Number(values.held) * 1_000).filter(({ name }) => name.includes(values.only))
  if (chosen.length === 0) throw new Error(`no fault is called ${values.only}`)
  const server = await startPostgres()
  const rows: string[] = []
  let problems = 0
  try {
    for (const fault of chosen) {
      const outcomes = await row(server, fault)
      problems += outcomes.flatMap(outcome => outcome.problems).length
      rows.push(line(fault, outcomes))
    }
  } finally {
    await server.stop()
  }
  say(
    `\n${new Date().toISOString()}, node ${process.version}, ${cpus().length} x ${cpus()[0]?.model}, ${arch()}\n`,
  )
  say('| fault | runs | worst staleness (ms) | time to recover (ms) | wrong yes | false 401 | decisions |')
  say('| --- | ---: | ---: | ---: | ---: | ---: | ---: |')
  for (const row of rows) say(row)
  if (problems > 0) say(`\n${problems} problems`)
  return problems === 0 ? 0 : 1
}

/** On a database and servers of its own: what one fault leaves behind is not the next one's. */
async function row(server: Awaited<ReturnType<typeof startPostgres>>, fault: Fault): Promise<Outcome[]> {
  const stage = await makeStage({ serverUrl: server.url, server, replicas: Number(values.replicas) })
  const outcomes: Outcome[] = []
  for (let run = 1; run <= Number(values.runs); run++) {
    const outcome = await drill(stage, fault)
    outcomes.push(outcome)
    say(`${fault.name} ${run}: ${outcome.problems.length === 0 ? 'ok' : 'FAILED'}`)
    // A handful tell what is wrong; thousands may follow from it.
    for (const problem of outcome.problems.slice(0, 5)) say(`  ${problem}`)
  }
  await stage.stop()
  return outcomes
}

function line({ name }: Fault, outcomes: Outcome[]): string {
  const worst = (of: (outcome: Outcome) => number) => Math.round(Math.max(...outcomes.map(of)))
  const sum = (of: (outcome: Outcome) => number) =>
    outcomes.reduce((total, outcome) => total + of(outcome), 0)
  const cells = [
    name,
    outcomes.length,
    worst(({ verdict }) => verdict.worstStaleness),
    worst(({ recovery }) => recovery),
    sum(({ verdict }) => verdict.wrongYes.length),
    sum(({ verdict }) => verdict.false401.length),
    sum(({ verdict }) => verdict.decisions),
  ]
  return `| ${cells.join(' | ')} |`
}

process.exit(await main())
