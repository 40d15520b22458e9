import { afterAll, beforeAll, expect, test } from 'vitest'
import type { TestDatabase } from '../support/database.ts'
import { openTestDatabase } from '../support/world.ts'

let database: TestDatabase

beforeAll(async () => {
  database = await openTestDatabase()
})
afterAll(() => database.drop())

test('rows can be read as arrays in column order, and two columns may share a name', async () => {
  const statement = `select n as same, n * 2 as same, 'x' || n as text from generate_series(1, $1::int) as n`
  expect(await database.db.values(statement, [2])).toEqual([
    [1, 2, 'x1'],
    [2, 4, 'x2'],
  ])
  expect(await database.db.values('select 1 where false')).toEqual([])
})

test('a statement that was read as arrays can be read as objects again', async () => {
  const statement = 'select $1::int as number'
  expect(await database.db.values(statement, [1])).toEqual([[1]])
  expect(await database.db.query(statement, [1])).toEqual([{ number: 1 }])
})
