import type { Contender } from './contender.ts'
import type { Sample } from './load.ts'

export interface Row extends Sample {
  name: string
  counts: string
  rounds: Sample[]
  /** Of the rates: (maximum - minimum) / median. */
  spread: number
}

export const median = (values: number[]): number => {
  const sorted = values.toSorted((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2
}

const KEYS = ['rate', 'p50', 'p99', 'cpu', 'postgres', 'memory'] as const

export function rowOf({ name, counts }: Contender, rounds: Sample[]): Row {
  const of = Object.fromEntries(KEYS.map(key => [key, median(rounds.map(round => round[key]))]))
  const rates = rounds.map(({ rate }) => rate)
  const spread = (Math.max(...rates) - Math.min(...rates)) / of.rate!
  return { name, counts, rounds, spread, ...(of as unknown as Sample) }
}

/** The ratio of two rows. Both were measured in turns, so it compares round by round, and a slow minute affects both. */
export const ratio = (a: Row, b: Row, key: keyof Sample = 'rate') =>
  median(a.rounds.map((round, i) => round[key] / b.rounds[i]![key]))

const COLUMNS: [title: string, of: (row: Row) => string][] = [
  ['per second', row => row.rate.toLocaleString('en', { maximumFractionDigits: row.rate < 100 ? 1 : 0 })],
  ['spread', row => `${(row.spread * 100).toFixed(0)} %`],
  ['p50 ms', row => row.p50.toFixed(2)],
  ['p99 ms', row => row.p99.toFixed(2)],
  ['CPU µs', row => row.cpu.toFixed(1)],
  ['Postgres µs', row => row.postgres.toFixed(1)],
  ['RSS MB', row => row.memory.toFixed(0)],
]

export const tableOf = (rows: Row[]) =>
  markdown(
    ['what', ...COLUMNS.map(([title]) => title)],
    rows.map(row => [row.name, ...COLUMNS.map(([, of]) => of(row))]),
  )

export function markdown(head: string[], lines: string[][]): string {
  const widths = head.map((title, i) => Math.max(title.length, ...lines.map(line => line[i]!.length)))
  const write = (cells: string[]) =>
    `| ${cells.map((cell, i) => (i === 0 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!))).join(' | ')} |`
  const rule = `| ${widths.map((width, i) => (i === 0 ? '-'.repeat(width) : `${'-'.repeat(width - 1)}:`)).join(' | ')} |`
  return [write(head), rule, ...lines.map(write)].join('\n')
}
