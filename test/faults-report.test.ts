import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import type { Outcome } from '../faults/drill.ts'
import { between, report } from '../faults/report.ts'

/** What `npm run faults -- --write` puts into docs/faults.md. */

const PAGE = readFileSync(join(import.meta.dirname, '../docs/faults.md'), 'utf8')

const outcome = (recovery: number, worstStaleness: number, problems: string[] = []): Outcome => ({
  verdict: { wrongYes: [], false401: [], odd: [], worstStaleness, tried: 7, decisions: 100 },
  recovery,
  problems,
})

const rows = [{ name: 'a cable cut', outcomes: [outcome(90, 12.6), outcome(30, 400), outcome(50, 0)] }]

test('a fault is a line with its worst staleness, its recoveries and sums, and Postgres is named', () => {
  const text = report(rows, '18.1')
  expect(text).toContain('| a cable cut | 3 of 3 | 400 | 50, 90 | 0 | 0 | 300 | 21 |')
  expect(text).toContain(`Node ${process.version}, PostgreSQL 18.1. 1 of 1 faults passed`)
})

test('a run that failed or never recovered is not counted as passed', () => {
  const text = report(
    [{ name: 'a cable cut', outcomes: [outcome(90, 0), outcome(Number.NaN, 0, ['late'])] }],
    '18.1',
  )
  expect(text).toContain('| a cable cut | 1 of 2 | 0 | never | ')
  expect(text).toContain('0 of 1 faults passed')
})

test('the page has its place for the table, which a later one replaces, and the rest of it stays', () => {
  const once = between(PAGE, report(rows, '17.1'))
  const twice = between(once, report(rows, '18.1'))
  expect(twice).toContain('PostgreSQL 18.1')
  expect(twice).not.toContain('PostgreSQL 17.1')
  expect(twice.split('<!--')[0]).toBe(PAGE.split('<!--')[0])
  expect(twice.split('-->').at(-1)).toBe(PAGE.split('-->').at(-1))
  expect(() => between('no markers', 'table')).toThrow('docs/faults.md')
})
