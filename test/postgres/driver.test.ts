import { once } from 'node:events'
import { type AddressInfo, createServer, type Socket } from 'node:net'
import { inspect } from 'node:util'
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { DatabaseError } from '../../db/errors.ts'
import { openPostgres } from '../../db/postgres.ts'
import { Unavailable } from '../../server/lib/errors.ts'
import { openBlackHole } from '../support/black-hole.ts'
import { direct } from '../support/database.ts'
import { openLink } from '../support/link.ts'
import { copyDatabase } from '../support/templates.ts'

/** Every risk of postgres.js in docs/decisions/2026-11-29-one-client-is-one-connection.md is contained. */

/** Milliseconds. */
const DEADLINE = 5_000
/** How long a host may take to be ready for a statement (ms). */
const CONNECT_TIMEOUT = 2_000

let url: string
let drop: () => Promise<void>

beforeAll(async () => {
  const made = await copyDatabase()
  url = direct(made.migrateUrl)
  drop = made.drop
})
afterAll(() => drop())

function pool(at = url) {
  const db = openPostgres(at, DEADLINE, false)
  onTestFinished(() => db.close())
  return db
}

/** One connection, so that the next call would meet whatever a call leaves behind. */
function oneConnection(at = url) {
  const connection = pool(at).connection(DEADLINE)
  onTestFinished(() => connection.close())
  return connection
}

async function failureOf(promise: Promise<unknown>) {
  const began = performance.now()
  const error = await promise.then(
    rows => expect.fail(`it was answered: ${JSON.stringify(rows)}`),
    error => error as Unavailable,
  )
  return { error, took: performance.now() - began }
}

/** The test's own server. `onConnection` also gets the number of connections so far, including this one. */
async function serve(onConnection: (socket: Socket, count: number) => void) {
  let count = 0
  const server = createServer(socket => {
    socket.on('error', () => {})
    onConnection(socket, ++count)
  }).listen(0, '127.0.0.1')
  onTestFinished(() => void server.close())
  await once(server, 'listening')
  const at = new URL(url)
  at.port = String((server.address() as AddressInfo).port)
  return { url: at.href, port: at.port, count: () => count }
}

const pidOf = async (db: ReturnType<typeof oneConnection>) =>
  (await db.query<{ pid: number }>('select pg_backend_pid() as pid'))[0]!.pid

describe('an answer is complete or an error', () => {
  test('rows received before the backend died are not counted with those of the next call', async () => {
    const db = oneConnection()
    const dying = `select n, case when n = 20000 then pg_terminate_backend(pg_backend_pid()) end
      from generate_series(1, 1000000) as n where $1::int = 1`
    for (let round = 0; round < 5; round++) {
      expect((await failureOf(db.query(dying, [1]))).error).toBeInstanceOf(Unavailable)
      expect(await db.query('select $1::int as n', [round])).toEqual([{ n: round }])
    }
  })

  test('rows received before an error are not counted either, on the same connection', async () => {
    const db = oneConnection()
    const pid = await pidOf(db)
    for (let round = 0; round < 5; round++) {
      const { error } = await failureOf(
        db.query('select 1 / (n - $1::int) from generate_series(1, 9) as n', [5]),
      )
      expect(error).toBeInstanceOf(DatabaseError)
      expect(await db.query('select n from generate_series(1, $1::int) as n', [2])).toEqual([
        { n: 1 },
        { n: 2 },
      ])
    }
    expect(await pidOf(db)).toBe(pid)
  })

  test('a commit that fails after its rows were sent is a failure', async () => {
    const db = oneConnection()
    await db.query(`create table if not exists assay.late (n int unique deferrable initially deferred)`)
    await db.query('insert into assay.late values ($1)', [1])
    const { error } = await failureOf(db.query('insert into assay.late values ($1) returning n', [1]))
    expect((error as unknown as DatabaseError).sqlstate).toBe('23505')
    expect(await db.query('select n from assay.late')).toEqual([{ n: 1 }])
  })

  test('if the connection ends before or after the call was sent, the result is an error, not zero rows', async () => {
    const link = await openLink(url)
    onTestFinished(() => link.close())
    const db = oneConnection(link.url)
    for (let round = 0; round < 50; round++) {
      await db.query('select 1')
      const call = db.query<{ n: number }>('select $1::int as n', [round])
      if (round % 2 === 0) await new Promise(resolve => setImmediate(resolve))
      link.resetAll()
      await call.then(
        rows => expect(rows).toEqual([{ n: round }]),
        error => expect(error).toBeInstanceOf(Unavailable),
      )
    }
  })
})

describe('H70 each call makes one attempt, and gets one answer in time', () => {
  test('at a peer that accepts and closes', async () => {
    const peer = await serve(socket => socket.destroy())
    const { error, took } = await failureOf(pool(peer.url).query('select 1'))
    expect(error).toBeInstanceOf(Unavailable)
    expect(took).toBeLessThan(1_000)
    expect(peer.count()).toBe(1)
  })

  test('at one that closes after the handshake', async () => {
    const peer = await serve(socket => socket.once('data', () => socket.end()))
    const { error, took } = await failureOf(pool(peer.url).query('select 1'))
    expect(error.detail).toBe('database: CONNECTION_CLOSED')
    expect(took).toBeLessThan(1_000)
    expect(peer.count()).toBe(1)
  })

  test('at one that sends nothing, within the time limit of a host', async () => {
    const peer = await serve(() => {})
    const { error, took } = await failureOf(pool(peer.url).query('select 1'))
    expect(error.detail).toBe('database: CONNECT_TIMEOUT')
    expect(took).toBeLessThan(CONNECT_TIMEOUT + 500)
    expect(peer.count()).toBe(1)
  })

  test('at one that answers no SYN', async () => {
    const hole = await openBlackHole()
    onTestFinished(() => hole.close())
    const at = Object.assign(new URL(url), { port: hole.port }).href
    const { error, took } = await failureOf(pool(at).query('select 1'))
    expect(error.detail).toBe('database: CONNECT_TIMEOUT')
    expect(took).toBeGreaterThanOrEqual(CONNECT_TIMEOUT - 50)
    expect(took).toBeLessThan(CONNECT_TIMEOUT + 500)
  })
})

describe('H70 with several hosts', () => {
  /** The database behind other hosts, which are tried first. */
  const behind = (...ports: (number | string)[]) =>
    url.replace(
      /@[^/]+/,
      `@${[...ports, new URL(url).port || 5432].map(port => `127.0.0.1:${port}`).join(',')}`,
    )

  test('a dead one is skipped at once', async () => {
    const peer = await serve(socket => socket.destroy())
    const db = pool(behind(1, peer.port))
    const began = performance.now()
    expect(await db.query('select 1 as one')).toEqual([{ one: 1 }])
    expect(performance.now() - began).toBeLessThan(1_000)
  })

  test('one that answers no SYN costs its time limit once, and not at the next connection', async () => {
    const hole = await openBlackHole()
    onTestFinished(() => hole.close())
    const began = performance.now()
    expect(await pool(behind(hole.port)).query('select 1 as one')).toEqual([{ one: 1 }])
    expect(performance.now() - began).toBeLessThan(CONNECT_TIMEOUT + 1_000)
    const again = performance.now()
    expect(await pool(behind(hole.port)).query('select 1 as one')).toEqual([{ one: 1 }])
    expect(performance.now() - again).toBeLessThan(1_000)
  })

  test('a read-only one is skipped, and named if there is no other', async () => {
    const readOnly = 'options=-c%20default_transaction_read_only%3Don'
    const own = openPostgres(`${url}?${readOnly}&target_session_attrs=read-write`, DEADLINE, false)
    onTestFinished(() => own.close())
    expect((await failureOf(own.query('select 1'))).error.detail).toBe('database: READ_ONLY')
    const any = openPostgres(`${url}?${readOnly}`, DEADLINE, false)
    onTestFinished(() => any.close())
    expect(await any.query('select 1 as one')).toEqual([{ one: 1 }])
  })
})

/** A Postgres message: its type, its length and its body. */
function message(type: string, body: Buffer): Buffer {
  const head = Buffer.alloc(5)
  head.write(type)
  head.writeUInt32BE(body.length + 4, 1)
  return Buffer.concat([head, body])
}

const login = (kind: number, text = '') =>
  message('R', Buffer.concat([Buffer.from([0, 0, 0, kind]), Buffer.from(text)]))

describe('a server that is not Postgres ends the call, at once and with a named error, and nothing else', () => {
  test.each<[string, Buffer, string]>([
    ['a web server', Buffer.from('HTTP/1.1 400 Bad Request\r\n\r\n'), 'NOT_POSTGRES'],
    ['an endless message', Buffer.from([82, 255, 255, 255, 255, 0]), 'NOT_POSTGRES'],
    ['a login method that the driver does not know', login(7), 'UNKNOWN_LOGIN'],
    ['a SCRAM challenge without its parts', login(11, 'nonsense'), 'NOT_POSTGRES'],
    ['one that would take years to answer', login(11, 'r=a,s=b,i=4294967295'), 'NOT_POSTGRES'],
    ['a login cut short', message('R', Buffer.from([0])), 'UNKNOWN_LOGIN'],
  ])('%s', async (_, bytes, code) => {
    const peer = await serve(socket => socket.once('data', () => socket.write(bytes)))
    const { error, took } = await failureOf(pool(peer.url).query('select 1'))
    expect(error).toBeInstanceOf(Unavailable)
    expect(error.detail).toBe(`database: ${code}`)
    expect(took).toBeLessThan(1_000)
    expect(peer.count()).toBe(1)
  })

  test('unencrypted bytes after the answer to the TLS request', async () => {
    const peer = await serve(socket => socket.once('data', () => socket.write('S\0')))
    const { error } = await failureOf(pool(`${peer.url}?sslmode=require`).query('select 1'))
    expect(error.detail).toBe('database: NOT_POSTGRES')
  })
})

test('an error in the driver is reported without the statement and its parameters', async () => {
  const endless: Record<string, unknown> = { secret: 'PARAMETER' }
  endless.itself = endless
  const { error } = await failureOf(oneConnection().query('select $1::json as statement', [endless]))
  expect(error).not.toBeInstanceOf(Unavailable)
  const said = `${inspect(error, { depth: 9, showHidden: true })} ${error.stack}`
  expect(said).not.toMatch(/PARAMETER|statement'|as statement|itself/)
})

test('a call that finds too many waiting is refused at once', async () => {
  const peer = await serve(() => {})
  const db = pool(peer.url)
  const calls = Array.from({ length: 10_000 }, () => db.query('select 1').catch(error => error))
  const { error, took } = await failureOf(db.query('select 1'))
  expect(error).toMatchObject({ reason: 'busy' })
  expect(took).toBeLessThan(500)
  await Promise.all(calls)
})
