import { globSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'

/** Each known hazard of systems like this one has an id, and the names of the tests that exclude it begin with that id. */

const ids = (first: number, last: number) =>
  Array.from({ length: last - first + 1 }, (_, n) => `H${String(first + n).padStart(2, '0')}`)

/** Tokens and keys; caches and revocation; sessions; the edge; the database driver; third-party verifiers. */
const HAZARDS = [...ids(1, 36), ...ids(40, 60), 'H69', 'H70', 'H71']

const ROOT = import.meta.dirname

/** The ids at the beginning of test names. */
const named = globSync('**/*.test.ts', { cwd: ROOT })
  .map(file => readFileSync(join(ROOT, file), 'utf8'))
  .flatMap(text => text.match(/(?<=['"`])(H\d\d[ :])+/g) ?? [])
  .flatMap(ids => ids.match(/H\d\d/g)!)

test('every hazard has a test with its id, and every id is a hazard', () => {
  expect([...new Set(named)].sort()).toEqual(HAZARDS)
})
