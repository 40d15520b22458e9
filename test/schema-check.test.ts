import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { NEEDED } from '../db/schema-check.ts'
import { MIGRATIONS, MIGRATIONS_FOLDER } from './support/migrations.ts'

/** The tables in drizzle-kit's snapshot of the last migration. */
interface TableSnapshot {
  name: string
  columns: Record<string, { primaryKey: boolean }>
  indexes: Record<string, unknown>
  compositePrimaryKeys: Record<string, unknown>
  uniqueConstraints: Record<string, unknown>
}

const number = String(MIGRATIONS.at(-1)!.idx).padStart(4, '0')
const snapshot: { tables: Record<string, TableSnapshot>; sequences: Record<string, { name: string }> } =
  JSON.parse(readFileSync(join(MIGRATIONS_FOLDER, `meta/${number}_snapshot.json`), 'utf8'))

function namesOf({ name, columns, indexes, ...keys }: TableSnapshot): string[] {
  const isKeyed = Object.values(columns).some(({ primaryKey }) => primaryKey)
  const parts = [columns, indexes, keys.compositePrimaryKeys, keys.uniqueConstraints].flatMap(Object.keys)
  return [name, ...[...parts, ...(isKeyed ? [`${name}_pkey`] : [])].map(part => `${name}.${part}`)]
}

test('the start checks for every table, column, index, key and sequence in drizzle-kit’s snapshot', () => {
  const noted = [
    ...Object.values(snapshot.tables).flatMap(namesOf),
    ...Object.values(snapshot.sequences).map(({ name }) => name),
  ]
  expect(noted.length).toBeGreaterThan(130)
  expect(NEEDED.filter(name => !/^function |_default$/.test(name)).sort()).toEqual(noted.sort())
})
