import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { TestDatabase } from '../support/database.ts'
import { openTestDatabase } from '../support/world.ts'

/** Both drivers write values that the database stores exactly, and read exactly what it stores. */

let database: TestDatabase

beforeAll(async () => {
  database = await openTestDatabase()
  await database.admin.query('create schema codecs')
  await database.admin.query('grant all on schema codecs to public')
})
afterAll(() => database.drop())

const BYTES = Buffer.from([0, 1, 92, 127, 128, 255])
const AT = new Date('2026-11-29T12:34:56.789Z')
const OBJECT = { text: 'a "quoted" \\ text\n', number: 1.5, nothing: null, list: [1, 'two', { three: 3 }] }
const HARD = ['', 'a,b', '{c}', 'd"e', 'f\\g', 'NULL', 'null', ' h ', 'ü\n€']

/** Type, value, and an SQL condition that the stored value satisfies. */
const VALUES: [type: string, value: unknown, stored: string][] = [
  ['boolean', true, 'v'],
  ['boolean', false, 'not v'],
  ['int2', -32_768, 'v = -32768'],
  ['int4', 2_147_483_647, 'v = 2147483647'],
  ['int8', Number.MAX_SAFE_INTEGER, 'v = 9007199254740991'],
  ['int8', -1, 'v = -1'],
  ['float8', 0.1, 'v = 0.1'],
  ['float8', 1e300, 'v = 1e300'],
  ['text', 'ü€\u{1f511} \'"\\\n', `v = E'ü€\u{1f511} ''"\\\\\\n'`],
  ['text', '', `v = ''`],
  ['text', 'true', `v = 'true'`],
  ['varchar', 'a', `v = 'a'`],
  ['bytea', BYTES, String.raw`v = '\x00015c7f80ff'`],
  ['bytea', Buffer.alloc(0), 'length(v) = 0'],
  ['timestamptz', AT, `v = '2026-11-29 12:34:56.789+00'`],
  ['timestamptz', new Date('0099-01-01T00:00:00.000Z'), `v = '0099-01-01 00:00:00+00'`],
  ['json', OBJECT, `v->>'text' = E'a "quoted" \\\\ text\\n' and v->'list'->2->>'three' = '3'`],
  ['jsonb', OBJECT, `jsonb_typeof(v) = 'object' and v->'nothing' = 'null' and v->>'number' = '1.5'`],
  ['jsonb', [1, 'two'], `v = '[1, "two"]'`],
  ['jsonb', true, `v = 'true'`],
  ['jsonb', 7, `v = '7'`],
  ['text[]', HARD, `array_length(v, 1) = 9 and v[2] = 'a,b' and v[4] = 'd"e' and v[6] = 'NULL'`],
  ['text[]', ['a', null], 'v[2] is null and v[1] is not null'],
  ['text[]', [], `v = '{}'`],
  ['int4[]', [1, -2], `v = '{1,-2}'`],
  ['int8[]', [9_007_199_254_740_991], `v = '{9007199254740991}'`],
  ['boolean[]', [true, false], `v = '{t,f}'`],
  ['timestamptz[]', [AT], `v = array['2026-11-29 12:34:56.789+00'::timestamptz]`],
  ['bytea[]', [BYTES], String.raw`v = array['\x00015c7f80ff'::bytea]`],
]

let tables = 0

/** A new table with one value, written as a parameter of the column's type. */
async function stored(type: string, value: unknown): Promise<string> {
  const table = `codecs.t${tables++}`
  await database.db.query(`create table ${table} (v ${type})`)
  await database.db.query(`insert into ${table} values ($1)`, [value])
  return table
}

test.each(VALUES)('%s %j is stored exactly, and read as it was written', async (type, value, isStored) => {
  const { db } = database
  const table = await stored(type, value)
  expect(await db.query(`select ${isStored} as stored from ${table}`)).toEqual([{ stored: true }])
  expect(await db.query(`select v from ${table}`)).toStrictEqual([{ v: value }])
  expect(await db.values(`select v from ${table}`)).toStrictEqual([[value]])
  // The same for a prepared statement, described or not.
  for (let time = 0; time < 2; time++)
    expect(await db.query(`select v from ${table} where $1::int = 1`, [1])).toStrictEqual([{ v: value }])
})

test.each([...new Set(VALUES.map(([type]) => type))])('%s null is null in both directions', async type => {
  const table = await stored(type, null)
  expect(await database.db.query(`select v from ${table}`)).toStrictEqual([{ v: null }])
  expect(await database.db.query(`select v is null as isnull from ${table}`)).toEqual([{ isnull: true }])
})

test('a value of an undeclared type is null too', async () => {
  expect(await database.db.query('select $1::text as v', [undefined])).toEqual([{ v: null }])
})

describe('JSON that is already text is sent unchanged', () => {
  test.each(['json', 'jsonb'])('%s', async type => {
    const table = await stored(type, JSON.stringify({ a: 1 }))
    expect(await database.db.query(`select v->>'a' as a from ${table}`)).toEqual([{ a: '1' }])
  })
})

describe('a parameter has the type that the statement declares, whatever the value', () => {
  test.each([
    ['text', true, 'true'],
    ['text', 5, '5'],
    ['text', AT, '2026-11-29T12:34:56.789Z'],
    ['text', OBJECT, JSON.stringify(OBJECT)],
    ['int4', '7', 7],
    ['boolean', 'f', false],
    ['boolean', 't', true],
    ['timestamptz', '2026-11-29 12:34:56.789+00', AT],
    ['bytea', '\\x00ff', Buffer.from([0, 255])],
    ['date', AT, '2026-11-29'],
  ])('%s given %j', async (type, given, read) => {
    expect(await database.db.query(`select $1::${type} as v`, [given])).toStrictEqual([{ v: read }])
  })
})

test('one statement takes a value and null for the same parameter', async () => {
  for (const value of [AT, null, AT]) {
    const rows = await database.db.query('select coalesce($1::timestamptz, $2::timestamptz) as v', [
      value,
      AT,
    ])
    expect(rows).toStrictEqual([{ v: AT }])
  }
})

describe('values that JavaScript cannot represent', () => {
  test('timestamps are truncated to milliseconds, never rounded up; assay.now() has no microseconds', async () => {
    const { db } = database
    const [row] = await db.query<{ v: Date }>(`select '2026-11-29 12:34:56.789999+00'::timestamptz as v`)
    expect(row!.v).toEqual(AT)
    const [now] = await db.query('select now = date_trunc($1, now) as whole from assay.now() as now', [
      'milliseconds',
    ])
    expect(now).toEqual({ whole: true })
    // Timestamps are read as text if microseconds matter.
    const text = '2026-11-29 12:34:56.789999+00'
    const [kept] = await db.query(`select $1::timestamptz = '${text}'::timestamptz as kept`, [text])
    expect(kept).toEqual({ kept: true })
  })

  test.each([
    'select 9007199254740993::int8 as v',
    `select 'infinity'::timestamptz as v`,
    `select '0044-03-15 12:00:00+00 BC'::timestamptz as v`,
    `select '{{1},{2}}'::int4[] as v`,
  ])('%s is an error, never another value', async statement => {
    await expect(database.db.query(statement)).rejects.toThrow()
    expect(await database.db.query('select 1 as one')).toEqual([{ one: 1 }])
  })
})
