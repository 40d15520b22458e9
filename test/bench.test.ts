import { describe, expect, test } from 'vitest'
import { contendersOf } from '../bench/contenders.ts'
import { figuresOf } from '../bench/figures.ts'
import { countLines } from '../bench/lines.ts'
import type { Sample } from '../bench/load.ts'
import { rowOf } from '../bench/table.ts'
import { assertMeasured, fixed, part, type Run, TARGETS, type Target, targetsOf } from '../bench/targets.ts'
import { type Block, fencedBlocks } from './support/page-blocks.ts'

/** The results that the bench calculates from its measurements. `npm run bench` measures. */

const NOWHERE = 'postgres://nowhere.invalid/none'

describe('targets', () => {
  test('every measurement that they need is made', () => {
    const contenders = contendersOf(NOWHERE).map(({ name }) => name)
    const figures = figuresOf(NOWHERE).flatMap(({ names }) => names)
    assertMeasured(TARGETS, [...contenders, ...figures])
    expect(new Set(contenders).size).toBe(contenders.length)
    expect(() => assertMeasured(TARGETS, contenders)).toThrow(
      'no contender or figure measures start to ready on Postgres',
    )
  })

  test('each name that docs/performance.md selects exists', () => {
    const [{ text: commands }] = fencedBlocks('docs/performance.md') as [Block]
    const selected = [...commands.matchAll(/--only (?:'([^']+)'|(\S+))/g)].map(
      ([, quoted, word]) => quoted ?? word!,
    )
    const names = [...contendersOf(NOWHERE).map(({ name }) => name), ...TARGETS.map(({ what }) => what)]
    expect(selected.length).toBeGreaterThan(2)
    for (const text of selected) expect(names).toContainEqual(expect.stringContaining(text))
  })

  const sampleOf = (rate: number): Sample => ({ rate, p50: 1, p99: 1, cpu: 1, postgres: 1, memory: 1 })
  const rowWith = (name: string, rates: number[]) =>
    rowOf({ name, counts: 'answers', round: async () => sampleOf(0) }, rates.map(sampleOf))
  const runOf = (...rows: [string, number[]][]): Run => ({
    rows: new Map(rows.map(([name, rates]) => [name, rowWith(name, rates)])),
    figures: new Map(),
    failed: new Set(),
  })
  const target = (asked: number, most?: true): Target => ({
    what: 'a : b',
    measured: part('a', 'b'),
    asked: fixed(asked),
    ...(most && { most }),
  })

  test('a ratio is the median of the rounds’ ratios, and passes at exactly its bound', () => {
    // The ratio of the medians would be 20 : 30.
    const run = runOf(['a', [10, 20, 60]], ['b', [20, 80, 30]])
    expect(targetsOf(run, [target(0.5)])).toMatch(/\| a : b +\|.*\| >= 0\.50 \| +0\.50 \| +holds \|/)
    expect(targetsOf(run, [target(0.51)])).toMatch(/0\.50 \| MISSED \|/)
    expect(targetsOf(run, [target(0.5, true)])).toMatch(/<= 0\.50 \| +0\.50 \| +holds \|/)
    expect(targetsOf(run, [target(0.49, true)])).toMatch(/0\.50 \| MISSED \|/)
  })

  test('one without a bound is reported only', () => {
    const { asked, ...stated } = target(0.5)
    const run = runOf(['a', [10]], ['b', [20]])
    expect(targetsOf(run, [stated])).toMatch(/\| a : b +\| +\| +\| +0\.50 \| no target \|/)
  })

  test('one with a part that could not be measured has failed', () => {
    const run = { ...runOf(['a', [10]]), failed: new Set(['b']) }
    expect(targetsOf(run, [target(0.5)])).toMatch(/\| a : b +\| +\| +\| +\| FAILED \|/)
  })

  test('one with a part that was not selected is not reported', () => {
    expect(targetsOf(runOf(['a', [10]]), [target(0.5)])).toBe('')
  })
})

test('lines of code are those that are neither empty nor comments', () => {
  const text = `
/** One line. */
import { a } from 'a' // beside code

/**
 * Of several lines
 */
const SQL = \`
  -- of the statement
  select 1 /* beside code */\`
// and a last one
`
  expect(countLines(text)).toBe(3)
})
