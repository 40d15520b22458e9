import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import type postgres from 'postgres'
import { afterAll, beforeAll, expect, inject, test } from 'vitest'
import { startListener } from '../support/backends.ts'
import { control, createEmptyDatabase } from '../support/database.ts'
import { type Running, runCli, type Settings, startAssay, stopAll } from '../support/process.ts'
import { copyDatabase } from '../support/templates.ts'

/** `assay doctor` finds planted faults, names them, and says how to fix them. */

let database: Awaited<ReturnType<typeof copyDatabase>>
let other: Awaited<ReturnType<typeof copyDatabase>>
let sql: postgres.Sql
let server: Running
let good: Settings
const folder = mkdtempSync(join(tmpdir(), 'assay-'))
chmodSync(folder, 0o755)

beforeAll(async () => {
  database = await copyDatabase()
  other = await createEmptyDatabase(inject('databaseUrl'))
  sql = control(database.url)
  const keep = { DATABASE_URL: database.url, ISSUER: 'https://auth.example.com' }
  const secrets = {
    MASTER_KEYS: `m1:${randomBytes(32).toString('base64')}`,
    ADMIN_TOKEN: randomBytes(32).toString('hex'),
  }
  server = await startAssay({ ...keep, ...secrets })
  good = { ...keep, ...secrets, ASSAY_URL: server.url }
})
afterAll(async () => {
  await stopAll()
  await sql.end()
  await database.drop()
  await other.drop()
  rmSync(folder, { recursive: true })
})

async function examine(settings: Settings) {
  const { code, stdout, stderr } = await runCli(settings, ['doctor', '--json'])
  const findings = JSON.parse(stdout) as { check: string; state: string; found: string; remedy?: string }[]
  return { code, stderr, stdout, bad: findings.filter(({ state }) => state !== 'ok'), findings }
}

test('without faults every check runs, and the exit code is 0', async () => {
  const { code, bad, findings } = await examine(good)
  expect({ code, bad }).toEqual({ code: 0, bad: [] })
  expect(findings.map(({ check }) => check)).toEqual([
    'settings',
    'issuer',
    'database',
    'database settings',
    'database version',
    'database encoding',
    'database clock',
    'database disk',
    'commits',
    'transactions',
    'connections',
    'migrations',
    'privileges',
    'installation',
    'deletion',
    'master keys',
    'round trip',
  ])
  expect(await sql`select from assay.customers`).toHaveLength(0)
})

test('a database that was served elsewhere before is reported, with the steps for a copy', async () => {
  const [found] = await sql`select served_from from assay.installation`
  await sql`update assay.installation set served_from = '7/5'`
  const { bad } = await examine(good)
  await sql`update assay.installation set served_from = ${found!.served_from}`
  expect(bad).toContainEqual(
    expect.objectContaining({
      check: 'installation',
      state: 'warning',
      found: expect.stringMatching(/last served from another database/),
      remedy: expect.stringMatching(/Copies/),
    }),
  )
})

const key = () => `m1:${randomBytes(32).toString('base64')}`

const PLANTED: Record<string, [settings: () => Settings, check: string, found: RegExp, remedy: RegExp]> = {
  'a malformed setting': [() => ({ PORT: 'x' }), 'settings', /^PORT must be/, /PORT/],
  'a misspelt setting': [
    () => ({ ACESS_TOKEN_TTL: '1m' }),
    'settings',
    /^ACESS_TOKEN_TTL is not a setting and is ignored; did you mean ACCESS_TOKEN_TTL/,
    /rename/,
  ],
  'a missing secret': [() => ({ ADMIN_TOKEN: '' }), 'settings', /^ADMIN_TOKEN is missing/, /ADMIN_TOKEN/],
  'a missing secret file': [
    () => ({ ADMIN_TOKEN: '', ADMIN_TOKEN_FILE: join(folder, 'none') }),
    'settings',
    /can't read/,
    /ADMIN_TOKEN_FILE/,
  ],
  'a secret file that others can read': [
    () => {
      const file = join(folder, 'token')
      writeFileSync(file, good.ADMIN_TOKEN!)
      chmodSync(file, 0o644)
      return { ADMIN_TOKEN: '', ADMIN_TOKEN_FILE: file }
    },
    'file modes',
    /can be read by others/,
    /chmod 600/,
  ],
  'an issuer without TLS': [() => ({ ISSUER: 'http://auth.example.com' }), 'issuer', /not https/, /TLS/],
  'a database that is not running': [
    () => ({ DATABASE_URL: 'postgres://postgres@127.0.0.1:1/x' }),
    'database',
    /nothing listens/,
    /DATABASE_URL/,
  ],
  'a DIRECT_DATABASE_URL of another database': [
    () => ({ DIRECT_DATABASE_URL: other.url }),
    'database',
    /another database/,
    /same database/,
  ],
  'a database without migrations': [
    () => ({ DATABASE_URL: other.url }),
    'migrations',
    /none yet/,
    /assay migrate/,
  ],
  'a wrong master key': [
    () => ({ MASTER_KEYS: key() }),
    'master keys',
    /^m1: .* a different key/,
    /MASTER_KEYS/,
  ],
  'a missing master key': [
    () => ({ MASTER_KEYS: key().replace('m1', 'm2') }),
    'master keys',
    /encrypted under m1/,
    /after the first key/,
  ],
  'a Redis that is not running': [
    () => ({ REDIS_URL: 'redis://127.0.0.1:1' }),
    'redis',
    /can't be used/,
    /REDIS_URL/,
  ],
  'a server that is not running': [
    () => ({ ASSAY_URL: 'http://127.0.0.1:1' }),
    'round trip',
    /can't be reached/,
    /start/,
  ],
  'another issuer than the server’s': [
    () => ({ ISSUER: 'https://other.example.com' }),
    'round trip',
    /tokens is https:\/\/auth/,
    /server/,
  ],
}

test.each(Object.entries(PLANTED))(
  '%s is reported, with its fix',
  async (_, [settings, check, found, remedy]) => {
    const { bad, stdout, stderr } = await examine({ ...good, ...settings() })
    const named = bad.find(one => one.check === check && found.test(one.found))
    expect(named ?? bad).toMatchObject({ check })
    expect(named!.remedy).toMatch(remedy)
    for (const secret of [good.ADMIN_TOKEN!, good.MASTER_KEYS!.slice(3)])
      expect(stdout + stderr).not.toContain(secret)
  },
)

test('a clock jump that holds deletion is reported, with its fix', async () => {
  await sql`update assay.database_clock set held_until = '2100-01-02', jumped_at = '2100-01-01', jump = 7200000`
  const { bad } = await examine(good)
  await sql`update assay.database_clock set held_until = null`
  expect(bad.find(({ check }) => check === 'deletion')).toMatchObject({
    state: 'warning',
    found: expect.stringContaining('jumped by 7200 s'),
    remedy: expect.stringContaining('assay clock confirm'),
  })
})

test('the secrets of deploy/make-secrets.sh are readable for everyone, in a folder that is not', async () => {
  const secrets = join(folder, 'secrets')
  await promisify(execFile)('sh', [join(import.meta.dirname, '../../deploy/make-secrets.sh'), secrets])
  const file = join(secrets, 'admin_token')
  const ofModes = async () => {
    const { findings } = await examine({ ...good, ADMIN_TOKEN: '', ADMIN_TOKEN_FILE: file })
    return findings.find(({ check }) => check === 'file modes')
  }
  expect(await ofModes()).toMatchObject({ state: 'ok' })
  chmodSync(secrets, 0o755)
  expect(await ofModes()).toMatchObject({ state: 'warning', remedy: `chmod 600 ${file}` })
})

test('an unexpected error in a check is a finding, not a stack trace', async () => {
  const odd = await startListener((request, response) => {
    const made = { customer: { id: 'aaaaaaaaaaaaaaaa' }, api_key: 'x' }
    response.end(request.url === '/issue' ? '<html>' : JSON.stringify(made))
  })
  const { code, bad, stderr } = await examine({ ...good, ASSAY_URL: `http://127.0.0.1:${odd.port}` })
  await odd.stop()
  expect(stderr).not.toMatch(/^\s+at /m)
  expect(bad).toEqual([
    {
      check: 'round trip',
      state: 'wrong',
      found: 'this check failed: SyntaxError',
      remedy: expect.any(String),
    },
  ])
  expect(code).toBe(1)
})

test('failures end with 1, warnings with 0', async () => {
  expect((await examine({ ...good, MASTER_KEYS: key() })).code).toBe(1)
  expect(
    (await examine({ ...good, ISSUER: 'http://auth.example.com', ASSAY_URL: 'http://127.0.0.1:1' })).code,
  ).toBe(0)
})
