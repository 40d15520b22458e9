import { readFileSync, writeFileSync } from 'node:fs'
import { drill, type Outcome } from '../drill.ts'
import type { Fault } from '../fault.ts'
import { callsTo } from '../kills/calls.ts'
import { gather } from '../kills/crowd.ts'
import { openLedger } from '../kills/ledger.ts'
import { reckon } from '../kills/reckoning.ts'
import { between, machine, PAGE } from '../report.ts'
import { makeStage, type Stage } from '../stage.ts'
import { findMissingPackages, startCluster } from './cluster.ts'
import type { Dcs } from './member.ts'
import { patroniFaults } from './rows.ts'

export interface PatroniOptions {
  /** Runs per fault. */
  runs: number
  /** Selects the faults whose names contain this text. */
  only: string
  replicas: number
  dcs: Dcs
  /** Writes the table into docs/faults.md. */
  write: boolean
}

interface Row {
  name: string
  outcomes: PatroniOutcome[]
}

interface PatroniOutcome extends Outcome {
  /** Number of acknowledged acts, and how many of them were lost. */
  acts: number
  lost: number
}

/** Tokens outlive a drill, so a token that is refused was ended and did not expire. */
const SETTINGS = { ACCESS_TOKEN_TTL: '24h', MAX_ACCESS_TOKEN_TTL: '24h', TRUST_PROXY: '127.0.0.1' }

const say = (line: string) => process.stdout.write(`${line}\n`)

/** Runs every selected fault the given number of times on a Patroni cluster of its own. Returns the number of problems. */
export async function runPatroni(options: PatroniOptions): Promise<number> {
  const missing = findMissingPackages()
  if (missing.length > 0) {
    say(
      `skipped, because programs for the Patroni cluster are missing; run: apt-get install ${missing.join(' ')}`,
    )
    return 0
  }
  const cluster = await startCluster(options.dcs)
  try {
    const chosen = patroniFaults(cluster).filter(({ name }) => name.includes(options.only))
    if (chosen.length === 0)
      throw new Error(`no Patroni fault has ${options.only} in its name; docs/faults.md lists all`)
    const rows: Row[] = []
    for (const fault of chosen) rows.push(await runRow(fault, cluster, options))
    return summarize(rows, await cluster.query('show server_version'), options)
  } finally {
    await cluster.stop()
  }
}

type Cluster = Awaited<ReturnType<typeof startCluster>>

async function runRow(fault: Fault, cluster: Cluster, { runs, replicas }: PatroniOptions): Promise<Row> {
  const stage = await makeStage({ serverUrl: cluster.url, replicas, settings: SETTINGS })
  const outcomes: PatroniOutcome[] = []
  for (let run = 1; run <= runs; run++) {
    await cluster.settle()
    const outcome = await runOnce(stage, fault)
    outcomes.push(outcome)
    tell(`${fault.name} ${run}`, outcome)
  }
  await cluster.settle()
  await stage.stop()
  return { name: fault.name, outcomes }
}

/** Runs the drill of a fault while other clients perform every kind of act, then checks everything that was acknowledged. */
async function runOnce(stage: Stage, fault: Fault): Promise<PatroniOutcome> {
  const [calls, ledger] = [callsTo(stage), openLedger()]
  const crowd = await gather(calls, ledger)
  crowd.calm(true)
  const outcome = await drill(stage, fault).finally(crowd.disperse)
  await reckon(stage, calls, ledger, crowd)
  const acts = [...ledger.acknowledged.values()].reduce((sum, count) => sum + count, outcome.revocations)
  const lost = ledger.wrongs.filter(({ wrong }) => wrong === 'lost').length
  const problems = [...outcome.problems, ...ledger.wrongs.map(({ wrong, what }) => `${wrong}: ${what}`)]
  return { ...outcome, problems, acts, lost }
}

function tell(run: string, { problems, acts, longestWithoutYes, verdict }: PatroniOutcome) {
  const figures = `${acts} acts, ${verdict.decisions} decisions, no yes for ${Math.round(longestWithoutYes)} ms`
  say(`${run}: ${problems.length === 0 ? 'ok' : 'FAILED'}, ${figures}`)
  for (const problem of problems.slice(0, 5)) say(`  ${problem}`)
}

/** Prints the table and returns the number of problems. */
function summarize(rows: Row[], postgres: string, { dcs, write }: PatroniOptions): number {
  const text = `${machine()}, PostgreSQL ${postgres}, Patroni with \`${dcs}\`.\n\n${tableOf(rows)}`
  say(`\n${text}`)
  const problems = rows.flatMap(({ outcomes }) => outcomes.flatMap(({ problems }) => problems)).length
  if (problems > 0) say(`${problems} problems`)
  if (write)
    writeFileSync(PAGE, between(readFileSync(PAGE, 'utf8'), text, 'npm run faults -- --patroni --write'))
  return problems
}

const tableOf = (
  rows: Row[],
) => `| fault | passed | acts | lost | wrong yes | false 401 | worst staleness (ms) | without a yes, median and worst (ms) | decisions | past the bound |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
${rows.map(line).join('\n')}
`

function line({ name, outcomes }: Row): string {
  const sum = (of: (outcome: PatroniOutcome) => number) =>
    outcomes.reduce((total, outcome) => total + of(outcome), 0)
  const gaps = outcomes.map(({ longestWithoutYes }) => Math.round(longestWithoutYes)).sort((a, b) => a - b)
  const cells = [
    name,
    `${sum(({ problems }) => Number(problems.length === 0))} of ${outcomes.length}`,
    sum(({ acts }) => acts),
    sum(({ lost }) => lost),
    sum(({ verdict }) => verdict.wrongYes.length),
    sum(({ verdict }) => verdict.false401.length),
    Math.round(Math.max(...outcomes.map(({ verdict }) => verdict.worstStaleness))),
    `${gaps[gaps.length >> 1]}, ${gaps.at(-1)}`,
    sum(({ verdict }) => verdict.decisions),
    sum(({ verdict }) => verdict.tried),
  ]
  return `| ${cells.join(' | ')} |`
}
