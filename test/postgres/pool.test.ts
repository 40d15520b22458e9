import { inspect } from 'node:util'
import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest'
import { DatabaseError } from '../../db/errors.ts'
import { openPostgres } from '../../db/postgres.ts'
import { Unavailable } from '../../server/lib/errors.ts'
import { control } from '../support/database.ts'
import { openLink } from '../support/link.ts'
import { until } from '../support/process.ts'
import { copyDatabase } from '../support/templates.ts'

/** Milliseconds; the server's own is 5 s. */
const DEADLINE = 500
let url: string
let drop: () => Promise<void>

beforeAll(async () => {
  const made = await copyDatabase()
  url = made.migrateUrl
  drop = made.drop
})
afterAll(() => drop())

async function linkedPool(deadline = DEADLINE) {
  const link = await openLink(url)
  const db = openPostgres(link.url, deadline, false)
  onTestFinished(async () => {
    link.close()
    await db.close()
  })
  return { link, db }
}

function pool() {
  const db = openPostgres(url, DEADLINE, false)
  onTestFinished(() => db.close())
  return db
}

const errorOf = (promise: Promise<unknown>) =>
  promise.then(
    () => undefined,
    error => error,
  )

const backendOf = async (db: Pick<ReturnType<typeof pool>, 'query'>) =>
  (await db.query<{ pid: number }>('select pg_backend_pid() as pid'))[0]!.pid

test('a call whose connection falls silent ends at its deadline, while the others finish', async () => {
  const { link, db } = await linkedPool()
  await Promise.all(Array.from({ length: 9 }, () => db.query('select pg_sleep(0.02)')))
  link.set({ silenceAt: 'never ends' })
  const began = performance.now()
  const silent = errorOf(db.query(`select 'never ends'`))
  const others = Array.from({ length: 8 }, (_, i) => db.query('select pg_sleep($1)', [i / 40]))
  expect(await silent).toBeInstanceOf(Unavailable)
  const took = performance.now() - began
  expect(took).toBeGreaterThanOrEqual(DEADLINE - 5)
  expect(took).toBeLessThan(DEADLINE + 200)
  await Promise.all(others)
})

test('a process that was suspended past the deadline of a call still gets its answer', async () => {
  const db = pool()
  await db.query('select 1')
  // In this phase of the event loop, timers run before the driver sends anything.
  await new Promise(resolve => setImmediate(resolve))
  const call = db.query('select 1 as one')
  const end = performance.now() + DEADLINE + 200
  while (performance.now() < end);
  expect(await call).toEqual([{ one: 1 }])
})

test('running calls may finish when the pool is replaced, and later ones do not wait for them', async () => {
  const { link, db } = await linkedPool()
  link.set({ silenceAt: 'never ends' })
  const silent = errorOf(db.query(`select 'never ends'`))
  await until('most of the deadline has passed', () => db.usage().calls === 1)
  await db.query('select pg_sleep(0.35)')
  const underWay = db.query<{ done: boolean }>('select true as done, pg_sleep(0.3)')
  expect(await silent).toBeInstanceOf(Unavailable)
  const began = performance.now()
  await db.query('select 1')
  expect(performance.now() - began).toBeLessThan(200)
  expect((await underWay)[0]!.done).toBe(true)
})

test('a connection that falls silent is replaced by another one', async () => {
  const { link, db } = await linkedPool()
  const connection = db.connection(200)
  onTestFinished(() => connection.close())
  const first = await backendOf(connection)
  link.set({ silenceAt: 'never ends' })
  expect(await errorOf(connection.query(`select 'never ends'`))).toBeInstanceOf(Unavailable)
  expect(await backendOf(connection)).not.toBe(first)
})

test('a pool that reconnects opens new connections, but not again at once', async () => {
  const db = pool()
  const first = await backendOf(db)
  await until('it is no longer young', async () => {
    db.reconnect()
    return (await backendOf(db)) !== first
  })
  const second = await backendOf(db)
  db.reconnect()
  expect(await backendOf(db)).toBe(second)
})

test('a connection that is cut in the middle of a write affects no later call', async () => {
  const { link, db } = await linkedPool(2_000)
  const large = `cut here${'x'.repeat(2_000_000)}`
  for (let round = 0; round < 5; round++) {
    await db.query('select length($1::text)', ['warm'])
    link.set({ resetAt: 'cut here' })
    const calls = [large, 'a', 'b', large, 'c'].map(text =>
      db
        .query<{ n: number }>('select length($1::text) as n', [text])
        .then(([row]) => expect(row!.n).toBe(text.length)),
    )
    const errors = await Promise.all(calls.map(errorOf))
    for (const error of errors) if (error !== undefined) expect(error).toBeInstanceOf(Unavailable)
    expect(errors[0]).toBeInstanceOf(Unavailable)
    await link.fair()
    await until('it works again', async () => (await errorOf(db.query('select 1'))) === undefined, 1_000)
  }
})

test('a call that meets a reset ends at once, whenever it happens, and the next one works', async () => {
  const { link, db } = await linkedPool(5_000)
  await Promise.all(Array.from({ length: 10 }, () => db.query('select pg_sleep(0.05)')))
  let longest = 0
  let failed = 0
  let going = true
  const caller = async () => {
    while (going) {
      const began = performance.now()
      const error = await errorOf(db.query('select pg_sleep(0.001)'))
      if (error !== undefined) failed++
      longest = Math.max(longest, performance.now() - began)
    }
  }
  const callers = Array.from({ length: 30 }, caller)
  try {
    for (let round = 0; round < 40; round++) {
      const before = failed
      link.resetAll()
      await until('the calls have met it', () => failed > before, 2_000)
      await until('it works again', async () => (await errorOf(db.query('select 1'))) === undefined, 2_000)
    }
  } finally {
    going = false
    await Promise.all(callers)
  }
  process.stdout.write(`resets: the longest call took ${Math.round(longest)} ms, ${failed} failed\n`)
  expect(longest).toBeLessThan(1_500)
  expect(await db.query('select 1 as one')).toEqual([{ one: 1 }])
})

test('a statement that waits for a lock ends before its deadline, in the database too', async () => {
  const db = pool()
  await db.query('create table if not exists assay.locked (n int)')
  const sql = control(url)
  await sql.begin(async transaction => {
    await transaction.unsafe('lock table assay.locked in access exclusive mode')
    const error = await errorOf(db.query('select n from assay.locked'))
    expect(error).toBeInstanceOf(Unavailable)
    expect((error as Unavailable).detail).toBe('database: 57014')
    const waiting = await transaction.unsafe(
      `select 1 from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()`,
    )
    expect(waiting).toHaveLength(0)
  })
  await sql.end()
  expect(await db.query('select n from assay.locked')).toEqual([])
})

const raise = (sqlstate: string) =>
  `do $$ begin raise exception 'SECRET in the message' using errcode = '${sqlstate}'; end $$`

test.each(
  '08006 25006 28000 28P01 3D000 40001 40P01 53100 53200 53300 55P03 57014 57P01 57P03 58030 XX000 XX001'.split(
    ' ',
  ),
)('SQLSTATE %s means that the state is unknown', async sqlstate => {
  const error = await errorOf(pool().query(raise(sqlstate)))
  expect(error).toBeInstanceOf(Unavailable)
  expect((error as Unavailable).detail).toBe(`database: ${sqlstate}`)
  expect(inspect(error, { depth: 9, showHidden: true })).not.toContain('SECRET')
})

test.each(['23505', '22P02', '42501', '42P01', 'P0001'])(
  'SQLSTATE %s is a server error, reported without any text of the statement',
  async sqlstate => {
    const error = await errorOf(pool().query(raise(sqlstate)))
    expect(error).toBeInstanceOf(DatabaseError)
    expect((error as DatabaseError).sqlstate).toBe(sqlstate)
    expect(inspect(error, { depth: 9, showHidden: true })).not.toContain('SECRET')
  },
)

test('a database error contains neither its statement nor its parameters', async () => {
  const db = pool()
  await db.query('create table if not exists assay.pairs (k text constraint one_k unique)')
  await db.query('insert into assay.pairs values ($1) on conflict do nothing', ['PARAMETER'])
  const errors = [
    await errorOf(db.query('select $1::text::int as statement', ['PARAMETER'])),
    await errorOf(db.query('insert into assay.pairs values ($1)', ['PARAMETER'])),
    await errorOf(db.query('select statement from nowhere where k = $1', ['PARAMETER'])),
  ]
  for (const error of errors) {
    expect(error).toBeInstanceOf(DatabaseError)
    const said = `${inspect(error, { depth: 9, showHidden: true })} ${JSON.stringify(error)} ${error.stack}`
    expect(said).not.toMatch(/PARAMETER|nowhere|statement from|insert into/)
  }
  expect((errors[1] as DatabaseError).constraint).toBe('one_k')
})

test('a value that the driver refuses to send is a server error, not an outage', async () => {
  const endless: Record<string, unknown> = {}
  endless.itself = endless
  const error = await errorOf(pool().query('select $1::json', [endless]))
  expect(error).toBeInstanceOf(Error)
  expect(error).not.toBeInstanceOf(Unavailable)
})
