import { stripVTControlCharacters } from 'node:util'

/** Columns under their names. What others wrote could otherwise draw on the operator's terminal. */
export function table(names: string[], rows: (string | number | undefined)[][]): string {
  if (rows.length === 0) return 'none'
  const cells = [names.map(name => name.toUpperCase()), ...rows.map(row => row.map(printable))]
  const widths = names.map((_, i) => cells.reduce((most, row) => Math.max(most, row[i]!.length), 0))
  return cells
    .map(row =>
      row
        .map((cell, i) => cell.padEnd(widths[i]!))
        .join('  ')
        .trimEnd(),
    )
    .join('\n')
}

/** A name and a value on each line; what is undefined is left out. */
export function listing(members: Record<string, unknown>): string {
  const shown = Object.entries(members).filter(([, value]) => value !== undefined)
  const width = Math.max(...shown.map(([name]) => name.length))
  return shown.map(([name, value]) => `${name.padEnd(width)}  ${printable(value)}`).join('\n')
}

/** As JSON, in which nothing draws on a terminal either. */
export const asJson = (value: unknown) =>
  JSON.stringify(value, undefined, 2).replace(
    /[\u007f-\u009f]/g,
    one => `\\u00${one.charCodeAt(0).toString(16)}`,
  )

export function printable(value: unknown): string {
  if (value === undefined || value === null) return '-'
  const text = typeof value === 'object' ? JSON.stringify(value) : String(value)
  return stripVTControlCharacters(text).replace(/\p{Cc}/gu, '?')
}

/** Seconds, in the largest unit that leaves a whole. */
export function span(milliseconds: number): string {
  if (milliseconds < 1_000) return `${Math.round(milliseconds)} ms`
  const seconds = Math.round(milliseconds / 1_000)
  return seconds < 120 ? `${seconds} s` : `${Math.round(seconds / 60)} min`
}

/** The answer of a command that has nothing to show. */
export const DONE = { json: {}, text: 'done' }
