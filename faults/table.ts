import { readFileSync, writeFileSync } from 'node:fs'
import { drill, type Outcome } from './drill.ts'
import type { Fault } from './fault.ts'
import { startPostgres } from './postgres.ts'
import { startRedis } from './redis.ts'
import { between, PAGE, type Row, report } from './report.ts'
import { faults } from './rows.ts'
import { makeStage } from './stage.ts'

export interface TableOptions {
  /** Of each fault. */
  runs: number
  /** Part of the names of those that are chosen. */
  only: string
  replicas: number
  /** How long the open transaction stays open (ms). */
  held: number
  /** Into docs/faults.md. */
  write: boolean
}

const say = (line: string) => process.stdout.write(`${line}\n`)

/** Every chosen fault so often, on Postgres servers of our own; says what came of it. Answers the number of problems. */
export async function runTable(options: TableOptions): Promise<number> {
  const chosen = faults(options.held).filter(({ name }) => name.includes(options.only))
  if (chosen.length === 0) throw new Error(`no fault is called ${options.only}`)
  const rows: Row[] = []
  let postgres = ''
  for (const fault of chosen) {
    const row = await runRow(fault, options)
    postgres = row.postgres
    rows.push({ name: fault.name, outcomes: row.outcomes })
  }
  const text = report(rows, postgres)
  say(`\n${text}`)
  const problems = rows.flatMap(({ outcomes }) => outcomes.flatMap(outcome => outcome.problems)).length
  if (problems > 0) say(`${problems} problems`)
  if (options.write)
    writeFileSync(PAGE, between(readFileSync(PAGE, 'utf8'), text, 'npm run faults -- --write'))
  return problems
}

/** On a database and servers of its own: what one fault leaves behind is not the next one's. */
async function runRow(fault: Fault, { runs, replicas }: TableOptions) {
  const server = await startPostgres()
  const redis = fault.redis && (await startRedis())
  const stage = await makeStage({ serverUrl: server.url, server, redis, replicas })
  const postgres = await server.ask('show server_version')
  const outcomes: Outcome[] = []
  for (let run = 1; run <= runs; run++) {
    const outcome = await drill(stage, fault)
    outcomes.push(outcome)
    tell(`${fault.name} ${run}`, outcome)
  }
  await stage.stop()
  await stage.server!.stop()
  await redis?.stop()
  return { outcomes, postgres }
}

function tell(run: string, { problems, recovery, verdict }: Outcome) {
  const figures = `${verdict.decisions} decisions, ${verdict.tried} past the bound, recovered in ${Math.round(recovery)} ms`
  say(`${run}: ${problems.length === 0 ? `ok, ${figures}` : 'FAILED'}`)
  // A handful tell what is wrong; thousands may follow from it.
  for (const problem of problems.slice(0, 5)) say(`  ${problem}`)
}
