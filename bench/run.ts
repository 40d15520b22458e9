import { cpus } from 'node:os'
import { parseOptions } from '../faults/options.ts'
import { findProgram } from '../test/support/program.ts'
import type { Contender } from './contender.ts'
import { contendersOf } from './contenders.ts'
import { dropAll } from './database.ts'
import { type Figures, figuresOf } from './figures.ts'
import type { Sample } from './load.ts'
import { once } from './once.ts'
import { stopAll } from './processes.ts'
import { tableOfProfile } from './profile.ts'
import { removeScratch } from './scratch.ts'
import { type Row, rowOf, tableOf } from './table.ts'
import { assertMeasured, needsOf, type Run, TARGETS, type Target, targetsOf } from './targets.ts'

const USAGE = `usage: npm run bench -- [options]

  --only TEXT   only targets and contenders with TEXT in their names, and what
                those targets compare with; can be repeated
  --list        print the names of all targets and contenders
  --rounds N    number of rounds, default 5
  --seconds N   length of one contender's round, default 2
  --json        print the samples of all rounds as JSON
  --profile     also profile a round of each of Assay's contenders, by function
  --hostile     instead: measure how hostile callers slow down others (10 min)
  --growth      instead: measure how cost grows with customers, revocations
                and rows (up to an hour)

It needs wrk and nginx from the system's packages, git with the commit that it
compares with, the npm registry for the packages of that commit and of the
peers, and a Postgres server where it can create databases (DATABASE_URL,
default: postgres://postgres@127.0.0.1:5432/postgres).

A full run takes about a quarter of an hour. The exit code is 1 if any
measurement failed, for example because of a single wrong answer. It is 0
otherwise, even if targets are missed.`

const { values: options } = parseOptions('bench', {
  only: { type: 'string', multiple: true, default: [''] },
  list: { type: 'boolean', default: false },
  rounds: { type: 'string', default: '5' },
  seconds: { type: 'string', default: '2' },
  json: { type: 'boolean', default: false },
  profile: { type: 'boolean', default: false },
  hostile: { type: 'boolean', default: false },
  growth: { type: 'boolean', default: false },
  help: { type: 'boolean', short: 'h', default: false },
})

const postgres = process.env.DATABASE_URL ?? 'postgres://postgres@127.0.0.1:5432/postgres'

/** Everything that can be measured, and the targets. */
interface Stage {
  contenders: Contender[]
  figures: Figures[]
  targets: Target[]
}

async function main() {
  if (options.help) return print(USAGE)
  const [rounds, seconds] = [positive('rounds'), positive('seconds')]
  if (options.hostile) return hostile(seconds)
  const stage = await setStage()
  if (options.list) return print(namesOf(stage).join('\n'))
  assertInstalled()
  const { contenders, figures, targets } = chosenOf(stage)
  const values = await figured(figures)
  const rows = await measured(contenders, rounds, seconds)
  if (failed.size > 0) process.exitCode = 1
  if (options.json)
    return print(JSON.stringify({ machine: machine(), rows, figures: [...values] }, undefined, 2))
  const run: Run = { rows: new Map(rows.map(row => [row.name, row])), figures: values, failed }
  const tables = [rows.length > 0 ? tableOf(rows) : '', targetsOf(run, targets)]
  print([machine(), ...tables.filter(table => table !== '')].join('\n\n'))
  if (options.profile) await profiles(contenders, seconds)
}

async function hostile(seconds: number) {
  const { measureHostile } = await import('./hostile.ts')
  print(`${machine()}\n\n${await measureHostile(postgres, seconds, options.only, progress)}`)
}

/** Names of contenders and figures that failed. The tables omit them, the others continue, and the exit code is 1. */
const failed = new Set<string>()

function positive(name: 'rounds' | 'seconds'): number {
  const value = Number(options[name])
  if (!Number.isInteger(value) || value < 1) throw new Error(`--${name} must be a whole number, at least 1`)
  return value
}

async function setStage(): Promise<Stage> {
  // Imported only for --growth: it seeds by SQL and so depends on the layout of the code.
  const stage = options.growth
    ? await (await import('./growth.ts')).setGrowth(postgres, progress)
    : { contenders: contendersOf(postgres), figures: figuresOf(postgres), targets: TARGETS }
  assertMeasured(stage.targets, measuredBy(stage))
  return stage
}

const measuredBy = ({ contenders, figures }: Stage) => [
  ...contenders.map(({ name }) => name),
  ...figures.flatMap(({ names }) => names),
]

const namesOf = ({ contenders, targets }: Stage) => [
  ...targets.map(({ what }) => `target     ${what}`),
  ...contenders.map(({ name }) => `contender  ${name}`),
]

function assertInstalled() {
  const missing = ['wrk', 'nginx', 'taskset'].filter(name => findProgram(name) === undefined)
  if (missing.length > 0)
    throw new Error(`not installed: ${missing.join(', ')}; run: apt-get install wrk nginx util-linux`)
}

/** The contenders and figures that `--only` selects, and those that the selected targets need. */
function chosenOf({ contenders, figures, targets }: Stage): Stage {
  const named = (text: string) => options.only.some(word => text.includes(word))
  const wanted = targets.filter(({ what }) => named(what))
  const needed = needsOf(wanted)
  const chosen = {
    contenders: contenders.filter(({ name }) => named(name) || needed.has(name)),
    figures: figures.filter(({ names }) => names.some(name => needed.has(name))),
    targets,
  }
  if (chosen.contenders.length + chosen.figures.length === 0)
    throw new Error(
      `no target or contender has ${options.only.join(' or ')} in its name; --list prints all names`,
    )
  return chosen
}

async function figured(figures: Figures[]): Promise<Map<string, number>> {
  const values: [string, number][] = []
  for (const { names, measure } of figures) values.push(...((await attempt(names, names[0]!, measure)) ?? []))
  return new Map(values)
}

/** Contenders take turns, so that a slow minute of the machine affects all of them. Every other round runs in reverse order. */
async function measured(contenders: Contender[], rounds: number, seconds: number): Promise<Row[]> {
  const samples = new Map<Contender, Sample[]>(contenders.map(each => [each, []]))
  const take = async (contender: Contender, what: string, long: number) => {
    const { name } = contender
    return failed.has(name) ? undefined : attempt([name], `${what}: ${name}`, () => contender.round(long))
  }
  for (const contender of contenders) await take(contender, 'warming up', 1)
  for (let round = 0; round < rounds; round++)
    for (const contender of round % 2 ? contenders.toReversed() : contenders) {
      const sample = await take(contender, `round ${round + 1} of ${rounds}`, seconds)
      if (sample) samples.get(contender)!.push(sample)
    }
  progress('')
  return contenders.filter(({ name }) => !failed.has(name)).map(each => rowOf(each, samples.get(each)!))
}

/** Reports progress and errors. On an error it adds `names` to `failed` and returns undefined. */
async function attempt<Made>(
  names: string[],
  what: string,
  run: () => Promise<Made>,
): Promise<Made | undefined> {
  progress(what)
  try {
    return await run()
  } catch (error) {
    for (const name of names) failed.add(name)
    process.stderr.write(`bench: FAILED, ${what}: ${(error as Error).message}\n`)
    return undefined
  }
}

async function profiles(contenders: Contender[], seconds: number) {
  for (const { name, profile } of contenders) {
    if (failed.has(name) || !profile) continue
    const profiled = await attempt([name], `profile: ${name}`, () => profile(seconds))
    if (profiled) print(`\n${tableOfProfile(name, profiled)}`)
  }
}

/** Both a signal and the end of the run call it. */
const cleanUp = once(async () => {
  await stopAll().catch(() => {})
  await dropAll()
  await removeScratch()
})

function machine(): string {
  const day = new Date().toISOString().slice(0, 10)
  const { length } = cpus()
  return `${day}, ${length} cores of ${cpus()[0]?.model.trim()}, Node ${process.version}, ${options.rounds} rounds of ${options.seconds} s`
}

/** Progress goes to stderr, so that the table can be piped. */
const progress = (text: string) =>
  process.stderr.write(process.stderr.isTTY ? `\r\x1b[2K${text}` : text && `${text}\n`)

const print = (text: string) => process.stdout.write(`${text}\n`)

// A terminal also sends the signal to npm, which forwards it. The second signal must not interrupt the clean-up.
for (const [signal, code] of [
  ['SIGINT', 130],
  ['SIGTERM', 143],
] as const)
  process.on(signal, () => void cleanUp().then(() => process.exit(code)))
await main()
  .catch(error => {
    process.stderr.write(`bench: ${error.message}\n`)
    process.exitCode = 1
  })
  .finally(cleanUp)
process.exit()
