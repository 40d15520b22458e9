import { readFileSync, writeFileSync } from 'node:fs'
import { drill, type Outcome } from './drill.ts'
import type { Fault } from './fault.ts'
import { startPostgres } from './postgres.ts'
import { startRedis } from './redis.ts'
import { between, PAGE, type Row, report } from './report.ts'
import { faults } from './rows.ts'
import { makeStage } from './stage.ts'

export interface TableOptions {
  /** Runs per fault. */
  runs: number
  /** Selects the faults whose names contain this text. */
  only: string
  replicas: number
  /** Time that the open transaction stays open (ms). */
  held: number
  /** Writes the table into docs/faults.md. */
  write: boolean
}

const say = (line: string) => process.stdout.write(`${line}\n`)

/**
 * Runs every selected fault the given number of times, on Postgres servers of its own, and prints the results. Returns the
 * number of problems.
 */
export async function runTable(options: TableOptions): Promise<number> {
  const chosen = faults(options.held).filter(({ name }) => name.includes(options.only))
  if (chosen.length === 0)
    throw new Error(`no fault has ${options.only} in its name; docs/faults.md lists all`)
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

/** Uses a new database and new servers, so that one fault does not affect the next. */
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
  // A few problems show what is wrong; one cause can produce thousands.
  for (const problem of problems.slice(0, 5)) say(`  ${problem}`)
}
