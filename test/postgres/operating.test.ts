import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import type postgres from 'postgres'
import {
  afterAll,
  afterEach,
  beforeAll,
  beforeEach,
  describe,
  expect,
  inject,
  onTestFinished,
  test,
} from 'vitest'
import { ALL_WELL, ask, checksOf, issue, logIn, refresh, signUp, verify } from '../support/calls.ts'
import { control, createEmptyDatabase, direct, MIGRATES } from '../support/database.ts'
import { bash, killAll } from '../support/npm.ts'
import { blockOf } from '../support/page-blocks.ts'
import { linkCheckout, paste } from '../support/paste.ts'
import { type Running, runAssay, startAssay, stopAll, until } from '../support/process.ts'
import { findProgram } from '../support/program.ts'
import { copyDatabase } from '../support/templates.ts'
import type { Tokens } from '../support/world.ts'

/** The commands and statements of docs/operating.md that need Postgres. */

const run = promisify(execFile)
const ROOT = join(import.meta.dirname, '../..')

const [m1, m2] = ['m1', 'm2'].map(id => `${id}:${randomBytes(32).toString('base64')}`)
const settings = {
  MASTER_KEYS: m1!,
  ADMIN_TOKEN: 'operator-Qm8sVx2Lk9Tz4Wb7Rf1Yc6Hn3Jd5',
  ISSUER: 'http://assay.test',
  TRUST_PROXY: '127.0.0.1',
}

let database: Awaited<ReturnType<typeof copyDatabase>>
let sql: postgres.Sql

beforeEach(async () => {
  database = await copyDatabase()
  sql = control(database.url)
})
afterEach(async () => {
  killAll()
  await stopAll()
  await sql.end()
  await database.drop()
})

const start = (more: Record<string, string> = {}) =>
  startAssay({ ...settings, DATABASE_URL: database.url, DIRECT_DATABASE_URL: direct(database.url), ...more })

describe('a new master key', () => {
  test('in two rounds, no replica meets a customer that it can’t decrypt', async () => {
    const replicas = [await start(), await start()]
    const tokens = [(await signUp(replicas[0]!)).account]
    for (const ring of [`${m1},${m2}`, `${m2},${m1}`]) {
      for (const i of [0, 1]) {
        await replicas[i]!.stop('SIGINT')
        replicas[i] = await start({ MASTER_KEYS: ring })
        tokens.push(...(await Promise.all(replicas.map(signUp))).map(({ account }) => account))
        for (const at of replicas) for (const token of tokens) expect(await verify(at, token)).toBe(200)
      }
    }
  })

  test('in one, replicas that lack it answer 503 for customers that signed up since', async () => {
    const [older, newer] = [await start(), await start({ MASTER_KEYS: `${m2},${m1}` })]
    const [known, unknown] = [(await signUp(older)).account, (await signUp(newer)).account]
    expect([await verify(newer, known), await verify(newer, unknown)]).toEqual([200, 200])
    expect([await verify(older, known), await verify(older, unknown)]).toEqual([200, 503])
  })
})

const PAGE = 'docs/operating.md'
const page = readFileSync(join(ROOT, PAGE), 'utf8')

test('every statement on the page can be pasted', async () => {
  await (await start()).stop('SIGINT')
  // A detached month.
  await sql.unsafe(
    'create table assay.audit_events_2025_01 (like assay.audit_events including all excluding identity)',
  )
  const blocks = [...page.matchAll(/^ *```sql\n(.*?)^ *```$/gms)].map(([, statements]) => statements!)
  expect(blocks.length).toBeGreaterThan(2)
  for (const block of blocks) await sql.unsafe(`begin; ${block}; rollback`)
})

test('the commands for Postgres start a server with secrets of its own', async () => {
  const checkout = mkdtempSync(join(tmpdir(), 'assay-checkout-'))
  onTestFinished(() => rmSync(checkout, { recursive: true }))
  linkCheckout(checkout)
  const values = { 'postgres://USER:PASSWORD@HOST:5432/DATABASE': database.url }
  const commands = blockOf(PAGE, 'sh deploy/make-secrets.sh', values)
  const server = bash(commands, { PORT: '0', DIRECT_DATABASE_URL: direct(database.url) }, checkout)
  await until('it listens', () => server.output().includes('"msg":"listening"'))
  expect(readdirSync(join(checkout, 'deploy/secrets'))).toContain('master_keys')
  server.interrupt()
  await server.exited
})

test('the commands that migrate need only the URL, and can be repeated', async () => {
  const { migrateUrl, drop } = await createEmptyDatabase(inject('databaseUrl'))
  onTestFinished(drop)
  const settings = { MIGRATE_URL: migrateUrl, DATABASE_URL: migrateUrl }
  for (const first of ['DATABASE_URL="$MIGRATE_URL" npm run migrate', 'npm run migrate'])
    expect(await bash(blockOf(PAGE, first), settings).exited).toBe(0)
  const { code, stderr } = await runAssay({ DATABASE_URL: migrateUrl }, ['migrate'])
  expect([code, stderr]).toEqual([0, ''])
})

test.skipIf(!['psql', 'script'].every(findProgram))(
  'after lost commits everything can be ended (skipped where psql or script is not installed)',
  async () => {
    const assay = await start()
    const { account } = await signUp(assay)
    const first = `psql "$MIGRATE_URL" --command "select setval('assay.epochs', nextval('assay.epochs') + 1000000)"`
    const { ADMIN_TOKEN } = settings
    const more = { MIGRATE_URL: database.migrateUrl, ASSAY_URL: assay.url, ADMIN_TOKEN }
    await paste(blockOf(PAGE, first), { cwd: ROOT, settings: more, words: ['everyone'] })
    expect(await verify(assay, account)).toBe(401)
    const [{ epoch } = {}] = await sql`select last_value::int as epoch from assay.epochs`
    expect(epoch).toBeGreaterThan(1_000_000)
  },
)

describe.skipIf(!findProgram('pg_dump'))('a restore (skipped where pg_dump is not installed)', () => {
  /** The first block of a section, as an operator pastes it. */
  const block = (section: string, language: string) =>
    new RegExp(`^## ${section}$.*?^ *\`\`\`${language}$(.*?)^ *\`\`\`$`, 'ms').exec(page)![1]!
  let folder: string
  const pasteThere = (commands: string) =>
    run('sh', ['-ec', commands], {
      cwd: folder,
      env: { PATH: process.env.PATH, MIGRATE_URL: database.migrateUrl },
    })

  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'assay-restore-'))
    expect(block('Backup', 'sh')).toContain('pg_dump')
    expect(block('Restore', 'sh')).toContain('pg_restore')
    expect(block('Restore', 'sql')).toContain('update assay.customers')
  })
  afterAll(() => rmSync(folder, { recursive: true }))

  async function restore() {
    await allowSchemas()
    await pasteThere(block('Restore', 'sh'))
  }

  /** Grants the privileges that the page requires for the role. */
  const allowSchemas = () =>
    sql.unsafe(`grant create on database ${new URL(database.url).pathname.slice(1)} to ${MIGRATES}`)

  /** A day of requests, a backup, another day, and the loss of the database. */
  async function lose() {
    const assay = await start()
    const ann = await signUp(assay)
    const keep = await issue(assay, ann.apiKey, 'keeps')
    const revoked = await issue(assay, ann.apiKey, 'is revoked')
    const carl = await signUp(assay)
    const first = await ask(assay, '/api/keys', { json: { scopes: ['read'] }, token: ann.account })
    await pasteThere(block('Backup', 'sh'))

    const kept = await refresh(assay, (await refresh(assay, keep.refresh_token)).json.refresh_token)
    const later = await issue(assay, ann.apiKey, 'comes later')
    await ask(assay, '/revoke', { form: { token: revoked.refresh_token }, token: ann.apiKey })
    expect(await verify(assay, revoked.access_token)).toBe(401)
    await ask(assay, `/api/keys/${first.json.id}`, { token: ann.account, method: 'DELETE' })
    const second = await ask(assay, '/api/keys', { json: { scopes: ['read'] }, token: ann.account })
    const bob = await signUp(assay)
    // Its tokens have numbers that the backup's sequence has not given out yet.
    let ended = carl.account
    for (let i = 0; i < 3; i++) {
      expect((await ask(assay, '/api/sessions', { token: ended, method: 'DELETE' })).status).toBe(204)
      ended = (await logIn(assay, carl.email)).access_token
    }
    const raised = await issue(assay, carl.apiKey, 'comes after three ends')
    await ask(assay, '/api/secrets/rotate', { json: {}, token: ann.account })
    const rotated = await issue(assay, ann.apiKey, 'is of the new secret')
    expect(await verify(assay, rotated.access_token)).toBe(200)
    expect(await assay.stop('SIGINT')).toBe(0)
    const [deleted, made] = [first.json.api_key as string, second.json.api_key as string]
    return { ann, bob, kept: kept.json as Tokens, revoked, later, raised, rotated, deleted, made }
  }

  const keyWorks = async (at: Running, apiKey: string) =>
    (await ask(at, '/introspect', { form: { token: 'x' }, token: apiKey })).status

  test('restores what was in the backup, including tokens that were ended since', async () => {
    const { ann, bob, kept, revoked, later, rotated, deleted, made } = await lose()
    await restore()
    const assay = await start()
    expect(await checksOf(assay)).toEqual(ALL_WELL)

    expect((await refresh(assay, kept.refresh_token)).status).toBe(200)
    expect(
      await sql`select type, detail::json->>'severity' as severity from assay.audit_events
      where type like 'session.%'`,
    ).toEqual([{ type: 'session.adopted', severity: 'critical' }])
    expect(await verify(assay, later.access_token)).toBe(200)
    expect(await refresh(assay, later.refresh_token)).toMatchObject({
      status: 400,
      json: { error: 'invalid_grant' },
    })
    expect(await verify(assay, revoked.access_token)).toBe(200)
    expect((await refresh(assay, revoked.refresh_token)).status).toBe(200)
    expect(await verify(assay, rotated.access_token)).toBe(401)
    expect((await refresh(assay, rotated.refresh_token)).status).toBe(400)
    expect([await keyWorks(assay, deleted), await keyWorks(assay, made)]).toEqual([200, 401])
    expect([await verify(assay, ann.account), await verify(assay, bob.account)]).toEqual([200, 401])
  })

  test('with the statements that end everything, ends everything that was issued before it', async () => {
    const { ann, kept, revoked, later, raised } = await lose()
    await restore()
    await sql.unsafe(block('Restore', 'sql'))
    const assay = await start()
    for (const { access_token, refresh_token } of [kept, revoked, later, raised]) {
      expect(await verify(assay, access_token)).toBe(401)
      expect((await refresh(assay, refresh_token)).status).toBe(400)
    }
    expect(await verify(assay, ann.account)).toBe(401)
    const fresh = [await logIn(assay, ann.email), await issue(assay, ann.apiKey, 'begins anew')]
    for (const { access_token, refresh_token } of fresh) {
      expect(await verify(assay, access_token)).toBe(200)
      expect((await refresh(assay, refresh_token)).status).toBe(200)
    }
  })

  test('must be done before a replica starts, because a start on an empty database creates another installation', async () => {
    const { ann, kept } = await lose()
    await sql`drop schema assay cascade`
    expect((await runAssay({ ...settings, DATABASE_URL: database.url })).code).toBe(78)
    await allowSchemas()
    const { migrateUrl } = database
    const assay = await start({ DATABASE_URL: migrateUrl, DIRECT_DATABASE_URL: migrateUrl })
    expect(await checksOf(assay)).toEqual(ALL_WELL)
    expect(await verify(assay, kept.access_token)).toBe(401)
    expect((await refresh(assay, kept.refresh_token)).status).toBe(400)
    expect(await keyWorks(assay, ann.apiKey)).toBe(401)
  })
})

test('a URL with several hosts is served from the first of them that answers', async () => {
  const { host } = new URL(database.url)
  const assay = await start({ DATABASE_URL: database.url.replace(host, `127.0.0.1:1,${host}`) })
  expect(await checksOf(assay)).toEqual(ALL_WELL)
  expect((await signUp(assay)).account).toBeTruthy()
})
