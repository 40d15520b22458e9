import { globSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'

/** Each hazard that is known of systems like this one has an id, and the tests that show it can't be here bear it. */

const ids = (first: number, last: number) =>
  Array.from({ length: last - first + 1 }, (_, n) => `H${String(first + n).padStart(2, '0')}`)

/** Tokens and keys; caches and revocation; sessions; the edge; the database's driver; foreign verifiers. */
const HAZARDS = [...ids(1, 36), ...ids(40, 60), 'H69', 'H70', 'H71']

const ROOT = import.meta.dirname

/** The ids that names of tests begin with. */
const named = globSync('**/*.test.ts', { cwd: ROOT })
  .map(file => readFileSync(join(ROOT, file), 'utf8'))
  .flatMap(text => text.match(/(?<=['"`])(H\d\d[ :])+/g) ?? [])
  .flatMap(ids => ids.match(/H\d\d/g)!)

test('every hazard has a test that bears its id, and every id is a hazard', () => {
  expect([...new Set(named)].sort()).toEqual(HAZARDS)
})
