import { cpus } from 'node:os'
import { parseArgs } from 'node:util'
import { findProgram } from '../test/support/program.ts'
import { anatomy } from './anatomy.ts'
import { dropAll } from './assay.ts'
import type { Contender } from './contender.ts'
import { setStage } from './contenders.ts'
import { setGrowth } from './growth.ts'
import type { Sample } from './load.ts'
import { stopAll } from './processes.ts'
import { removeScratch } from './scratch.ts'
import { type Row, rowOf, tableOf } from './table.ts'
import { targetsOf } from './targets.ts'

const USAGE = `usage: npm run bench -- [options]

  --only TEXT      only what has TEXT in its name, or in one of several: --only verify,Hono
  --rounds N       default 5
  --seconds N      of one round of one contender, default 2
  --json           the samples of all rounds, for programs
  --anatomy        where the microseconds of a verify go (no server, seconds)
  --growth         how cost grows with customers, revocations and rows (up to an hour)

Needs Postgres (DATABASE_URL, a server on which databases may be made; default postgres://postgres@127.0.0.1:5432/postgres),
and wrk and nginx from the system's packages.`

const { values: options } = parseArgs({
  options: {
    only: { type: 'string', default: '' },
    rounds: { type: 'string', default: '5' },
    seconds: { type: 'string', default: '2' },
    json: { type: 'boolean', default: false },
    anatomy: { type: 'boolean', default: false },
    growth: { type: 'boolean', default: false },
    help: { type: 'boolean', short: 'h', default: false },
  },
})

const postgres = process.env.DATABASE_URL ?? 'postgres://postgres@127.0.0.1:5432/postgres'

async function main() {
  if (options.help) return print(USAGE)
  if (options.anatomy) return print(`${machine()}\n\n${anatomy()}`)
  const missing = ['wrk', 'nginx', 'taskset'].filter(name => findProgram(name) === undefined)
  if (missing.length > 0)
    throw new Error(`${missing.join(', ')}: install it, as apt-get install wrk nginx util-linux does`)
  const stage = options.growth ? await setGrowth(postgres, progress) : await setStage(postgres)
  const words = options.only.split(',')
  const chosen = stage.contenders.filter(({ name }) => words.some(word => name.includes(word)))
  const rows = await measured(chosen, Number(options.rounds), Number(options.seconds))
  if (options.json) return print(JSON.stringify({ machine: machine(), rows }, undefined, 2))
  print(`${machine()}\n\n${tableOf(rows)}\n`)
  print(targetsOf(new Map(rows.map(row => [row.name, row])), stage.figures))
}

async function cleanUp() {
  await stopAll()
  await dropAll()
  await removeScratch()
}

/** In turns, so that a slow minute of the machine is everybody's; every other round backwards. */
async function measured(contenders: Contender[], rounds: number, seconds: number): Promise<Row[]> {
  const samples = new Map<Contender, Sample[]>(contenders.map(each => [each, []]))
  for (const contender of contenders) {
    progress(`warming up: ${contender.name}`)
    await contender.round(1)
  }
  for (let round = 0; round < rounds; round++)
    for (const contender of round % 2 ? contenders.toReversed() : contenders) {
      progress(`round ${round + 1} of ${rounds}: ${contender.name}`)
      samples.get(contender)!.push(await contender.round(seconds))
    }
  progress('')
  return contenders.map(each => rowOf(each, samples.get(each)!))
}

function machine(): string {
  const day = new Date().toISOString().slice(0, 10)
  const { length } = cpus()
  return `${day}, ${length} cores of ${cpus()[0]?.model.trim()}, Node ${process.version}, ${options.rounds} rounds of ${options.seconds} s`
}

/** To the terminal alone: the table can be piped. */
const progress = (text: string) =>
  process.stderr.write(process.stderr.isTTY ? `\r\x1b[2K${text}` : text && `${text}\n`)

const print = (text: string) => process.stdout.write(`${text}\n`)

for (const [signal, code] of [
  ['SIGINT', 130],
  ['SIGTERM', 143],
] as const)
  process.once(signal, () => void cleanUp().then(() => process.exit(code)))
await main()
  .catch(error => {
    process.stderr.write(`bench: ${error.message}\n`)
    process.exitCode = 1
  })
  .finally(cleanUp)
process.exit()
