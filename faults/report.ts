import { arch, availableParallelism, cpus, totalmem } from 'node:os'
import { join } from 'node:path'
import type { Outcome } from './drill.ts'

export interface Row {
  name: string
  outcomes: Outcome[]
}

/** The time and machine of a measurement. */
export function machine(): string {
  const when = new Date().toISOString().slice(0, 16).replace('T', ' ')
  const cores = `${availableParallelism()} cores of ${cpus()[0]?.model} (${arch()})`
  return `${when} UTC, ${cores}, ${gibibytes()} GiB, Node ${process.version}`
}

/** The table for docs/faults.md: time and machine, then a line for each fault. */
export function report(rows: Row[], postgres: string): string {
  const passed = rows.filter(({ outcomes }) => outcomes.every(({ problems }) => problems.length === 0)).length
  return `${machine()}, PostgreSQL ${postgres}. ${passed} of ${rows.length} faults passed at every run.

| fault | passed | worst staleness (ms) | time to recover, median and worst (ms) | wrong yes | false 401 | decisions | past the bound |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
${rows.map(line).join('\n')}
`
}

function line({ name, outcomes }: Row): string {
  const passed = outcomes.filter(({ problems }) => problems.length === 0).length
  const sum = (of: (outcome: Outcome) => number) =>
    outcomes.reduce((total, outcome) => total + of(outcome), 0)
  const cells = [
    name,
    `${passed} of ${outcomes.length}`,
    Math.round(Math.max(...outcomes.map(({ verdict }) => verdict.worstStaleness))),
    recoveriesOf(outcomes),
    sum(({ verdict }) => verdict.wrongYes.length),
    sum(({ verdict }) => verdict.false401.length),
    sum(({ verdict }) => verdict.decisions),
    sum(({ verdict }) => verdict.tried),
  ]
  return `| ${cells.join(' | ')} |`
}

/** NaN means that it did not recover in time. */
function recoveriesOf(outcomes: Outcome[]): string {
  const times = outcomes.map(({ recovery }) => Math.round(recovery)).sort((a, b) => a - b)
  return times.some(Number.isNaN) ? 'never' : `${times[times.length >> 1]}, ${times.at(-1)}`
}

const gibibytes = () => Math.round(totalmem() / 2 ** 30)

/** The page with the tables. */
export const PAGE = join(import.meta.dirname, '../docs/faults.md')

const END = '<!-- end -->'

/** Replaces the text between the marker of `command`, which writes it, and the next end marker. */
export function between(page: string, text: string, command: string): string {
  const marker = `<!-- ${command} -->`
  const begin = page.indexOf(marker)
  const end = page.indexOf(END, begin)
  if (begin < 0 || end < 0) throw new Error(`docs/faults.md: put ${marker} and ${END} around the table`)
  return `${page.slice(0, begin + marker.length)}\n\n${text}\n${page.slice(end)}`
}
