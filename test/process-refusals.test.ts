import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { existsSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { type AddressInfo, createServer, type Server } from 'node:net'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { afterAll, afterEach, describe, expect, onTestFinished, test } from 'vitest'
import { open } from '../db/client.ts'
import { runAssay, stopAll } from './support/process.ts'
import { copyInstallation } from './support/templates.ts'

/** Starts that fail: each error says how to fix it and reveals no secret, and nothing is left behind. */

const root = mkdtempSync(join(tmpdir(), 'assay-'))
const DATA_DIR = join(root, 'data')
const servers: Server[] = []

afterEach(async () => {
  await stopAll()
  for (const server of servers.splice(0)) server.close()
})
afterAll(() => rmSync(root, { recursive: true }))

const PASSWORD = 'hunter2-Zq8Lk3'
const POSTGRES = {
  MASTER_KEYS: `m1:${randomBytes(32).toString('base64')}`,
  ADMIN_TOKEN: randomBytes(32).toString('hex'),
}

/** A server of the test, and how many connections it has had. */
async function serve(onConnection: Parameters<typeof createServer>[1] = () => {}) {
  let connections = 0
  const server = createServer(socket => {
    connections++
    socket.on('error', () => {})
    onConnection(socket)
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  servers.push(server)
  const { port } = server.address() as AddressInfo
  return { url: `postgres://keeper:${PASSWORD}@127.0.0.1:${port}/secretbase`, connections: () => connections }
}

test('all wrong settings are reported at once, with exit code 78, and nothing is created', async () => {
  const secret = 'only-20-characters!!'
  const { code, stdout, stderr } = await runAssay({
    DATA_DIR,
    PORT: '99999',
    ACCESS_TOKEN_TTL: '5',
    REFRESH_POLICY: 'maybe',
    MAX_STALENESS: '1ms',
    SIGNUP: 'perhaps',
    ADMIN_TOKEN: secret,
    SERVICES: `gateway:introspect:${secret}`,
    LOG_LEVEL: 'loud',
  })
  expect(code).toBe(78)
  const told = stderr.split('\n').map(line => line.split(/[:,]/)[0])
  for (const name of [
    'PORT',
    'ACCESS_TOKEN_TTL',
    'REFRESH_POLICY',
    'MAX_STALENESS',
    'SIGNUP',
    'ADMIN_TOKEN',
    'SERVICES',
    'LOG_LEVEL',
  ])
    expect(told).toContain(name)
  expect(stdout + stderr).not.toContain(secret)
  expect(stderr).not.toMatch(/^\s+at /m)
  expect(existsSync(DATA_DIR)).toBe(false)
})

test('a DATA_DIR that cannot be created is reported as such', async () => {
  const { code, stderr } = await runAssay({ DATA_DIR: '/dev/null/data' })
  expect(stderr).toContain('DATA_DIR')
  expect(stderr).not.toContain('DATABASE_URL')
  expect(code).toBe(78)
})

test('with DATABASE_URL no secret is created: without them it ends with 78 before it connects', async () => {
  const postgres = await serve()
  const { code, stdout, stderr } = await runAssay({ DATABASE_URL: postgres.url, DATA_DIR })
  expect(code).toBe(78)
  expect(stderr).toMatch(/^MASTER_KEYS: is missing/m)
  expect(stderr).toMatch(/^ADMIN_TOKEN: is missing/m)
  expect(stdout + stderr).not.toContain(PASSWORD)
  expect(postgres.connections()).toBe(0)
  expect(existsSync(DATA_DIR)).toBe(false)
})

test('--help prints the usage, and starts nothing', async () => {
  const { code, stdout, stderr } = await runAssay({ DATA_DIR }, ['--help'])
  expect(code).toBe(0)
  expect(stdout + stderr).toContain('npm start')
  expect(stdout + stderr).toContain('npm run migrate')
  expect(existsSync(DATA_DIR)).toBe(false)
})

test('an unknown verb is a usage error (64), and starts nothing', async () => {
  for (const words of [['sevre'], ['serve', 'now']]) {
    const { code, stderr } = await runAssay({ DATA_DIR }, words)
    expect(code, words.join(' ')).toBe(64)
    expect(stderr).toContain('usage:')
  }
  expect(existsSync(DATA_DIR)).toBe(false)
})

test('a Postgres that is not running ends the start with 69, with the fix and without any part of the URL', async () => {
  const gone = await serve()
  for (const server of servers) server.close()
  await expectUnavailable(gone.url)
})

test('a Postgres that accepts a connection and sends nothing ends the start with 69, and soon', async () => {
  const silent = await serve()
  const began = performance.now()
  await expectUnavailable(silent.url)
  expect(silent.connections()).toBeGreaterThan(0)
  expect(performance.now() - began).toBeLessThan(10_000)
})

test('a Postgres that closes the connection ends the start with 69', async () => {
  const rude = await serve(socket => socket.destroy())
  await expectUnavailable(rude.url)
  expect(rude.connections()).toBeGreaterThan(0)
})

describe('a damaged embedded database ends the start with 69 and the fix, and is not replaced', () => {
  const damaged = join(root, '..', `${basename(root)}-damaged`)

  afterEach(() => rmSync(damaged, { recursive: true, force: true }))

  const fill = (path: string) => writeFileSync(path, Buffer.alloc(statSync(path).size, 7))
  test.each<[string, (pgdata: string) => void]>([
    ['its first file is gone', pgdata => rmSync(join(pgdata, 'PG_VERSION'))],
    ['its control file is garbage', pgdata => fill(join(pgdata, 'global/pg_control'))],
    ['its log is garbage', pgdata => inside(join(pgdata, 'pg_wal'), /^0/).forEach(fill)],
    ['its tables are gone', pgdata => rmSync(join(pgdata, 'base'), { recursive: true })],
  ])('%s', async (_, damage) => {
    copyInstallation(damaged)
    damage(join(damaged, 'pgdata'))
    const before = readdirSync(join(damaged, 'pgdata'))
    const { code, stdout, stderr } = await runAssay({ DATA_DIR: damaged })
    expect(code).toBe(69)
    expect(stderr).toContain(`the database in ${join(damaged, 'pgdata')} is damaged`)
    expect(stderr).toContain('restore your backup')
    expect(stderr).not.toMatch(/^\s+at /m)
    expect(stderr.trim().split('\n')).toHaveLength(1)
    expect(stdout).toBe('')
    expect(readdirSync(join(damaged, 'pgdata'))).toEqual(expect.arrayContaining(before))
  })
})

test('an embedded database that lacks a table ends the start with 69 and the fix', async () => {
  const DATA_DIR = join(root, '..', `${basename(root)}-lacking`)
  onTestFinished(() => rmSync(DATA_DIR, { recursive: true }))
  const db = await open({ folder: join(copyInstallation(DATA_DIR), 'pgdata') })
  await db.query('drop table assay.sessions')
  await db.close()
  const { code, stdout, stderr } = await runAssay({ DATA_DIR })
  expect(stderr).toMatch(
    /^assay: the schema assay of this database lacks sessions: .* restore the whole backup .*\n$/,
  )
  expect({ code, stdout }).toEqual({ code: 69, stdout: '' })
})

const inside = (folder: string, names: RegExp) =>
  readdirSync(folder)
    .filter(name => names.test(name))
    .map(name => join(folder, name))

async function expectUnavailable(url: string) {
  const { code, stdout, stderr } = await runAssay({ ...POSTGRES, DATABASE_URL: url, DATA_DIR })
  expect(stderr).toContain('DATABASE_URL')
  expect(code).toBe(69)
  for (const word of ['keeper', PASSWORD, 'secretbase', 'postgres://', POSTGRES.ADMIN_TOKEN])
    expect(stdout + stderr).not.toContain(word)
  expect(stderr).not.toMatch(/^\s+at /m)
  expect(readdirSync(root)).toEqual([])
}
