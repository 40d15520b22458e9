import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { longestWithoutYes } from '../faults/checker.ts'
import type { Outcome } from '../faults/drill.ts'
import { between, report } from '../faults/report.ts'
import { faults } from '../faults/rows.ts'

/** The text that `npm run faults -- --write` puts into docs/faults.md. */

const PAGE = readFileSync(join(import.meta.dirname, '../docs/faults.md'), 'utf8')

test('the fault that the page selects by name exists', () => {
  const [, selected] = /--only "([^"]+)"/.exec(PAGE)!
  expect(faults(0).map(({ name }) => name)).toContainEqual(expect.stringContaining(selected!))
})

const outcome = (recovery: number, worstStaleness: number, problems: string[] = []): Outcome => ({
  verdict: { wrongYes: [], false401: [], odd: [], worstStaleness, tried: 7, decisions: 100 },
  recovery,
  longestWithoutYes: 0,
  revocations: 0,
  problems,
})

const rows = [{ name: 'a cable cut', outcomes: [outcome(90, 12.6), outcome(30, 400), outcome(50, 0)] }]

test('a fault is a line with its worst staleness, its recoveries and totals, and Postgres is named', () => {
  const text = report(rows, '18.1')
  expect(text).toContain('| a cable cut | 3 of 3 | 400 | 50, 90 | 0 | 0 | 300 | 21 |')
  expect(text).toContain(`Node ${process.version}, PostgreSQL 18.1. 1 of 1 faults passed`)
})

test('a run that failed or never recovered does not count as passed', () => {
  const text = report(
    [{ name: 'a cable cut', outcomes: [outcome(90, 0), outcome(Number.NaN, 0, ['late'])] }],
    '18.1',
  )
  expect(text).toContain('| a cable cut | 1 of 2 | 0 | never | ')
  expect(text).toContain('0 of 1 faults passed')
})

const COMMANDS = ['npm run faults -- --write', 'npm run faults -- --patroni --write']

test.each(COMMANDS)('the page has a place for the table of `%s`, and the rest is unchanged', command => {
  const marker = `<!-- ${command} -->`
  const rest = (page: string) => {
    const [before, after] = page.split(marker)
    return [before, after!.slice(after!.indexOf('<!-- end -->'))]
  }
  const once = between(PAGE, report(rows, '17.1'), command)
  const twice = between(once, report(rows, '18.1'), command)
  expect(twice).toContain('PostgreSQL 18.1')
  expect(twice).not.toContain('PostgreSQL 17.1')
  expect(rest(twice)).toEqual(rest(PAGE))
  expect(() => between('no markers', 'table', command)).toThrow('docs/faults.md')
})

test('the longest time without an accepted token is measured per replica, whatever the others accept', () => {
  const at = (recordAnswer: number, replica: number, status: number) => ({
    ...{ recordAnswer, replica, status, token: 't', sentAt: recordAnswer, age: undefined },
  })
  const decisions = [at(0, 0, 200), at(700, 0, 503), at(900, 0, 200), at(100, 1, 200), at(300, 1, 200)]
  expect(longestWithoutYes(decisions)).toBe(900)
})
