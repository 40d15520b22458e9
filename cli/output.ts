import { stripVTControlCharacters } from 'node:util'
import type { Json } from './client.ts'
import type { Output } from './command.ts'
import { terminal } from './terminal.ts'

type Cell = string | number | undefined

/**
 * Rows in columns under their names, without control characters that could draw on the operator's terminal. Where that is wider
 * than `maxWidth`, each row is a list of names and values instead, because an id that is cut off can't be copied.
 */
export function table(names: string[], rows: Cell[][], maxWidth = terminal.width): string {
  if (rows.length === 0) return 'none'
  const cells = [names.map(name => name.toUpperCase()), ...rows.map(row => row.map(printable))]
  const widths = names.map((_, i) => cells.reduce((most, row) => Math.max(most, row[i]!.length), 0))
  const width = widths.reduce((sum, each) => sum + each + GAP.length, -GAP.length)
  return width > maxWidth ? lists(names, rows) : cells.map(row => formatRow(row, widths)).join('\n')
}

const GAP = '  '

const formatRow = (row: string[], widths: number[]) =>
  row
    .map((cell, i) => cell.padEnd(widths[i]!))
    .join(GAP)
    .trimEnd()

const lists = (names: string[], rows: Cell[][]) =>
  rows.map(row => list(Object.fromEntries(names.map((name, i) => [name, row[i] ?? '-'])))).join('\n\n')

/** Rows of the server's answer as a table, of what `cells` takes of each. */
export const showTable = (rows: Json[], names: string[], cells: (row: Json) => Cell[]): Output => ({
  json: rows,
  text: table(names, rows.map(cells)),
})

/** A name and a value on each line. Undefined values are skipped. */
export function list(members: Record<string, unknown>): string {
  const shown = Object.entries(members).filter(([, value]) => value !== undefined)
  const width = Math.max(...shown.map(([name]) => name.length))
  return shown.map(([name, value]) => `${name.padEnd(width)}  ${printable(value)}`).join('\n')
}

/** Indented JSON, with control characters escaped. */
export const toJson = (value: unknown) => escapeControls(JSON.stringify(value, undefined, 2))

/** Control characters of the terminal that JSON allows, and those that change the direction or the line of a text. */
const CONTROLS = /[\u007f-\u009f\u2028\u2029\p{Bidi_Control}]/gu

/** Escapes control characters as JSON does, so that JSON keeps its meaning. */
export const escapeControls = (text: string) =>
  text.replace(CONTROLS, one => `\\u${one.charCodeAt(0).toString(16).padStart(4, '0')}`)

export function printable(value: unknown): string {
  if (value === undefined || value === null) return '-'
  const text = typeof value === 'object' ? JSON.stringify(value) : String(value)
  return escapeControls(stripVTControlCharacters(text).replace(/\p{Cc}/gu, '?'))
}

/** A duration for people, in milliseconds, seconds or minutes. */
export function formatMilliseconds(milliseconds: number): string {
  if (milliseconds < 1_000) return `${Math.round(milliseconds)} ms`
  const seconds = Math.round(milliseconds / 1_000)
  return seconds < 120 ? `${seconds} s` : `${Math.round(seconds / 60)} min`
}

/** The output of a command that has nothing to show. */
export const DONE = { json: {}, text: 'done' }
