import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type postgres from 'postgres'
import { afterAll, afterEach, beforeAll, describe, expect, inject, onTestFinished, test } from 'vitest'
import { control, createEmptyDatabase, direct } from '../support/database.ts'
import { runAssay, until } from '../support/process.ts'
import { moments, PROMPT_MS, signalAt } from '../support/start-signals.ts'
import { beginStart, canUnshare, killStarts, type StartOptions } from '../support/starting.ts'
import { copyDatabase } from '../support/templates.ts'

/** Signals before the server listens, on Postgres. */

/** Advisory lock of a migration (db/migrate.ts). */
const LOCK = 0x61_73_73_61_79

let database: Awaited<ReturnType<typeof copyDatabase>>
let sql: postgres.Sql

const secrets = {
  MASTER_KEYS: 'm1:MS9JEcHX0lMwCGb7Zc3vdZNnEtw5jkEfq+xPBULSIXk=',
  ADMIN_TOKEN: 'operator-Qm8sVx2Lk9Tz4Wb7Rf1Yc6Hn3Jd5',
}
const settings = (more: Record<string, string> = {}) => ({
  ...secrets,
  // Bypasses a pooler, which would keep its own server connections after the process has ended.
  DATABASE_URL: direct(database.url),
  ...more,
})

beforeAll(async () => {
  database = await copyDatabase()
  sql = control(database.url)
})
afterEach(killStarts)
afterAll(async () => {
  await sql.end()
  await database.drop()
})

/** Counts queries since the last start to the DNS server, which never answers. */
let questions = 0

const others = (of = sql) => of`
  select wait_event from pg_stat_activity
  where datname = current_database() and application_name = 'assay'`
const nobodyIsConnected = (of = sql) =>
  until('the backends have ended', async () => (await others(of)).length === 0, 5_000)

/** Expects that it ends at the signal, with the signal's exit code, like an idle process. */
async function expectPromptEnd(options: StartOptions, isWaiting: () => Promise<boolean>, of = sql) {
  for (const [name, code] of [
    ['SIGTERM', 143],
    ['SIGINT', 130],
  ] as const) {
    questions = 0
    const start = beginStart(options)
    await start.hasHandlers()
    await until('it waits', isWaiting)
    const began = performance.now()
    start.signal(name)
    expect(await start.exited).toBe(code)
    expect(performance.now() - began).toBeLessThan(PROMPT_MS)
    expect(start.isLeft()).toBe(false)
    await nobodyIsConnected(of)
  }
}

const kinds = [
  { as: 'an ordinary process', asInit: false, program: 'server/main.ts' },
  { as: 'process 1', asInit: true, program: 'cli/main.ts' },
]

describe.each(kinds)('a start as $as', ({ asInit, program }) => {
  const testHere = test.skipIf(asInit && !canUnshare)
  const serve = (more = {}) => ({ settings: settings(more), command: [program, 'serve'], asInit })

  testHere('ends at a signal at any moment', async () => {
    for (const { delay, name } of moments(600, 120, asInit)) await signalAt(delay, name, serve())
    await nobodyIsConnected()
  })

  testHere('of two workers ends at a signal at any moment, and leaves no worker', async () => {
    for (const { delay, name } of moments(2_100, 600, asInit))
      await signalAt(delay, name, serve({ WORKERS: '2' }))
    await nobodyIsConnected()
  })

  testHere.each(['serve', 'migrate'])('%s ends at a signal while another migrates', async verb => {
    const { migrateUrl, drop } = await createEmptyDatabase(inject('databaseUrl'))
    const holder = control(migrateUrl)
    onTestFinished(async () => {
      await holder.end()
      await drop()
    })
    await holder`select pg_advisory_lock(${LOCK})`
    const isWaiting = async () => (await others(holder)).some(({ wait_event }) => wait_event === 'advisory')
    const own = { ...secrets, DATABASE_URL: migrateUrl, WORKERS: '2' }
    await expectPromptEnd({ settings: own, command: [program, verb], asInit }, isWaiting, holder)
  })
})

describe.skipIf(!canUnshare)('while no DNS server answers', () => {
  const folder = mkdtempSync(join(tmpdir(), 'assay-'))
  const resolvConf = join(folder, 'resolv.conf')
  const dns = createSocket('udp4')

  beforeAll(async () => {
    writeFileSync(resolvConf, 'nameserver 127.0.0.9\n')
    dns.on('message', () => questions++).bind(53, '127.0.0.9')
    await once(dns, 'listening')
  })
  afterAll(() => {
    dns.close()
    rmSync(folder, { recursive: true })
  })

  const isAsked = async () => questions > 0

  test('a start that looks for its database ends at a signal', async () => {
    const url = new URL(direct(database.url))
    url.hostname = 'database.example.com'
    const own = settings({ DATABASE_URL: url.href })
    for (const command of [
      ['cli/main.ts', 'serve'],
      ['cli/main.ts', 'migrate'],
    ])
      await expectPromptEnd({ settings: own, command, asInit: true, resolvConf }, isAsked)
  })

  test('a start that looks up its own address ends at a signal, and its replica is removed', async () => {
    await runAssay(settings(), ['migrate'])
    // Replicas of workers that were killed before they served.
    await sql`delete from assay.replicas`
    const replicas = async () => (await sql`select id from assay.replicas`).length
    const isThere = async () => (await replicas()) > 0
    const HOST = 'assay.example.com'
    const options = { command: ['cli/main.ts', 'serve'], asInit: true, resolvConf }
    await expectPromptEnd({ ...options, settings: settings({ HOST }) }, isThere)
    expect(await replicas()).toBe(0)
  })
})
