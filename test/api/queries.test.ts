import { inspect } from 'node:util'
import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest'
import { type Database, open } from '../../db/client.ts'
import { getTableColumns, sql } from '../../db/drizzle.ts'
import { DatabaseError } from '../../db/errors.ts'
import { param, prepared, statementName } from '../../db/prepared.ts'
import { findLogin } from '../../db/queries/accounts.ts'
import { type Params, query } from '../../db/query.ts'
import { installation } from '../../db/schema/installation.ts'
import { masterKeys } from '../../db/schema/master-keys.ts'
import { Unavailable } from '../../server/lib/errors.ts'
import type { TestDatabase } from '../support/database.ts'
import { openLink } from '../support/link.ts'
import { openTestDatabase } from '../support/world.ts'

/** drizzle's queries and SQL over its schema, as they reach the database and as results come back. */

let database: TestDatabase

beforeAll(async () => {
  database = await openTestDatabase()
})
afterAll(() => database.drop())

const errorOf = (promise: Promise<unknown>): Promise<unknown> =>
  promise.then(
    () => undefined,
    error => error,
  )

const insertKey = query('insertKey', (db, { id, checkValue }: Params<{ id: string; checkValue: string }>) =>
  db.insert(masterKeys).values({ id, checkValue }).returning({ id: masterKeys.id }),
)

/** Every part of an error that a log could show. */
const shown = (error: unknown) => inspect(error, { depth: 10, showHidden: true })

test('a query that breaks a constraint names it, and reveals neither its SQL nor its parameters', async () => {
  expect(await insertKey(database.db, { id: 'twice', checkValue: 'sensitive' })).toEqual([{ id: 'twice' }])
  const error = await errorOf(insertKey(database.db, { id: 'twice', checkValue: 'sensitive' }))
  expect(error).toBeInstanceOf(DatabaseError)
  expect(error).toMatchObject({ sqlstate: '23505', constraint: 'master_keys_pkey' })
  expect(shown(error)).not.toMatch(/sensitive|twice|insert into/)
})

/** A database that has just stopped. */
async function lostDatabase(): Promise<Database> {
  if (database.url === undefined) {
    const db = await open({ folder: 'memory://' })
    await db.close()
    return db
  }
  const link = await openLink(database.url)
  const db = await open({ url: link.url })
  onTestFinished(async () => {
    link.close()
    await db.close()
  })
  link.set({ resetAt: 'findLogin' })
  return db
}

test('a query to a stopped database reports an unknown state, and reveals nothing of the query', async () => {
  const error = await errorOf(findLogin(await lostDatabase(), { email: 'sensitive@example.com' }))
  expect(error).toBeInstanceOf(Unavailable)
  expect(shown(error)).not.toMatch(/sensitive|select /)
})

test('a query runs on the database that it is called with, under its own name', async () => {
  const texts: string[] = []
  const values: Database['values'] = (text, params) => {
    texts.push(text)
    return database.db.values(text, params)
  }
  await findLogin({ values }, { email: 'a' })
  await findLogin(database.db, { email: 'b' })
  await findLogin({ values }, { email: 'c' })
  expect(texts.map(statementName)).toEqual(['findLogin', 'findLogin'])
  expect(statementName('select 1')).toBeUndefined()
})

test('values keep their types in both directions', async () => {
  const insert = query(
    'insert',
    (
      db,
      {
        id,
        sealedKey,
        epoch,
        createdAt,
      }: Params<{ id: string; sealedKey: Uint8Array; epoch: number; createdAt: Date }>,
    ) =>
      db
        .insert(installation)
        .values({ id, sealedKey, epoch, createdAt })
        .returning({ ...getTableColumns(installation), nothing: sql<null>`null` }),
  )
  const row = {
    id: `it's $1 "quoted" \\ ü`,
    sealedKey: Uint8Array.of(0, 92, 255),
    epoch: 2 ** 40,
    createdAt: new Date('2031-02-03T04:05:06.789Z'),
  }
  const [stored] = await insert(database.db, row)
  expect({ ...stored, sealedKey: Uint8Array.from(stored!.sealedKey) }).toEqual({
    ...row,
    only: true,
    servedFrom: null,
    nothing: null,
  })
})

test('a repeated parameter is sent once, and a missing one is null', async () => {
  const sent: unknown[] = []
  const db: Pick<Database, 'query'> = {
    query(text, params) {
      sent.push(params)
      return database.db.query(text, params)
    },
  }
  const add = prepared('add')<{ a: number; b: number | undefined }, { sum: number; b: number | null }>(
    sql`select ${param('a')}::int + ${param('a')}::int as sum, ${param('b')}::int as b`,
  )
  expect(await add(db, { a: 2, b: undefined })).toEqual([{ sum: 4, b: null }])
  expect(sent).toEqual([[2, null]])
})

test('a value in place of a parameter is refused, and the error does not contain it', () => {
  const made = prepared('made')(sql`select ${'sensitive'}::text`)
  expect(() => made(database.db, {})).toThrow('made: a value is used where a parameter is needed')
})

const countPrepared = prepared('countPrepared')<{ name: string }, { many: number }>(sql`
  select count(*)::int as many from pg_prepared_statements where strpos(statement, ${param('name')}) > 0`)

test('a statement is parsed once per connection, however often it runs and whatever it returns', async () => {
  const connection = database.db.connection(5_000)
  onTestFinished(() => connection.close())
  const divide = prepared('divide')<{ by: number }, { result: number }>(
    sql`select 12 / ${param('by')}::int as result`,
  )
  expect(await divide(connection, { by: 3 })).toEqual([{ result: 4 }])
  expect(await errorOf(divide(connection, { by: 0 }))).toMatchObject({ sqlstate: '22012' })
  expect(await divide(connection, { by: 6 })).toEqual([{ result: 2 }])
  const [counted] = await countPrepared(connection, { name: 'divide' })
  // pgbouncer may send the count to another of its own connections, which has not parsed the statement.
  expect(process.env.TEST_POOLER ? [0, 1] : [1]).toContain(counted!.many)
})

test('opening the embedded database writes no more than 16 MB of zeros', async () => {
  const [row] = await database.db.query<{ shared_buffers: string }>('show shared_buffers')
  expect(row).toEqual({ shared_buffers: database.db.kind === 'embedded' ? '16MB' : expect.any(String) })
})
