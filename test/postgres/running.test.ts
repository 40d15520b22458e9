import { execFile } from 'node:child_process'
import { randomBytes, randomInt } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import type postgres from 'postgres'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, inject, test } from 'vitest'
import { migrate } from '../../db/migrate.ts'
import { control, createDatabase, direct } from '../support/database.ts'
import { logLines, type Running, runAssay, startAssay, stopAll, until } from '../support/process.ts'
import { findProgram } from '../support/program.ts'
import { bearer, type Tokens } from '../support/world.ts'

/** What docs/running.md says of upgrades, master keys and restores. */

const run = promisify(execFile)
const ROOT = join(import.meta.dirname, '../..')

const [m1, m2] = ['m1', 'm2'].map(id => `${id}:${randomBytes(32).toString('base64')}`)
const settings = {
  MASTER_KEYS: m1!,
  ADMIN_TOKEN: 'operator-Qm8sVx2Lk9Tz4Wb7Rf1Yc6Hn3Jd5',
  ISSUER: 'http://assay.test',
  TRUST_PROXY: '127.0.0.1',
}

let database: Awaited<ReturnType<typeof createDatabase>>
let sql: postgres.Sql

beforeEach(async () => {
  database = await createDatabase(inject('databaseUrl'))
  sql = control(database.url)
})
afterEach(async () => {
  await stopAll()
  await sql.end()
  await database.drop()
})

const start = (more: Record<string, string> = {}) =>
  startAssay({ ...settings, DATABASE_URL: database.url, DIRECT_DATABASE_URL: direct(database.url), ...more })

interface Asked {
  json?: object
  form?: Record<string, string>
  token?: string
  method?: string
}

async function ask(at: Running, path: string, { json, form, token, method }: Asked = {}) {
  const response = await fetch(at.url + path, {
    method: method ?? (json || form ? 'POST' : 'GET'),
    headers: {
      // From anywhere: signups from one address are few.
      'X-Forwarded-For': `10.${randomInt(256)}.${randomInt(256)}.${randomInt(256)}`,
      ...(token && bearer(token)),
      ...(json && { 'Content-Type': 'application/json' }),
    },
    ...(json && { body: JSON.stringify(json) }),
    ...(form && { body: new URLSearchParams(form) }),
  })
  const text = await response.text()
  // biome-ignore lint/suspicious/noExplicitAny: the body of any route.
  return { status: response.status, json: (text.startsWith('{') ? JSON.parse(text) : {}) as any }
}

const verify = async (at: Running, token: string) => (await ask(at, '/verify', { token })).status
const refresh = (at: Running, refresh_token: string) => ask(at, '/refresh', { form: { refresh_token } })
const issue = async (at: Running, token: string, subject: string) =>
  (await ask(at, '/issue', { json: { subject, refresh: true }, token })).json as Tokens
const ready = async (at: Running) => (await ask(at, '/readyz')).json.checks

const PASSWORD = 'correct horse battery'

async function signUp(at: Running) {
  const email = `${randomBytes(6).toString('hex')}@example.com`
  const { status, json } = await ask(at, '/api/auth/signup', { json: { email, password: PASSWORD } })
  expect(status).toBe(201)
  return { email, apiKey: json.api_key as string, account: json.access_token as string }
}

const logIn = async (at: Running, email: string) =>
  (await ask(at, '/api/auth/login', { json: { email, password: PASSWORD } })).json as Tokens

const ALL_WELL = { accepting: 'ok', state: 'ok', database: 'ok', migrations: 'ok' }

describe('upgrades', () => {
  const journal: { tag: string; when: number }[] = JSON.parse(
    readFileSync(join(ROOT, 'db/migrations/meta/_journal.json'), 'utf8'),
  ).entries
  const recorded = async () =>
    (await sql`select created_at::float8 as at from assay.migrations order by 1`).map(({ at }) => at)
  const columns = () =>
    sql`select table_name, column_name from information_schema.columns where table_schema = 'assay' order by 1, 2`

  /** As the version before the last migration left it. */
  async function makeOlder() {
    await sql`create schema assay`
    await sql`create table assay.migrations (id serial primary key, hash text not null, created_at bigint not null)`
    for (const { tag, when } of journal.slice(0, -1)) {
      await sql.unsafe(readFileSync(join(ROOT, `db/migrations/${tag}.sql`), 'utf8'))
      await sql`insert into assay.migrations (hash, created_at) values (${tag}, ${when})`
    }
  }

  /** As the next version might: every table has a column more, and there is one more table. */
  async function makeNewer() {
    const tables = await sql`select relname from pg_class where relnamespace = 'assay'::regnamespace
      and relkind in ('r', 'p') and not relispartition and relname <> 'migrations'`
    expect(tables.length).toBeGreaterThan(10)
    await sql.begin(async sql => {
      for (const { relname } of tables)
        await sql.unsafe(`alter table assay.${relname} add column of_the_next_version text default 'x'`)
      await sql`create table assay.of_the_next_version (id text)`
      await sql`insert into assay.migrations (hash, created_at) values ('next', ${journal.at(-1)!.when + 1})`
    })
  }

  /** Whatever reads or writes, ten times at once, so that each connection has each statement. */
  async function everything(at: Running): Promise<number[]> {
    const one = async () => {
      const { apiKey: token, account, email } = await signUp(at)
      const { access_token, refresh_token, session_id } = await issue(at, token, 'user-1')
      const answers = [
        await ask(at, '/verify', { token: access_token }),
        await ask(at, '/introspect', { form: { token: refresh_token }, token }),
        await refresh(at, refresh_token),
        await refresh(at, refresh_token),
        await ask(at, '/issue', { json: {}, token }),
        await ask(at, '/revoke', { form: { token: access_token }, token }),
        await ask(at, `/api/sessions/${session_id}`, { token, method: 'DELETE' }),
        await ask(at, '/api/subjects/user-1/revoke', { json: {}, token }),
        await ask(at, '/api/sessions', { token }),
        await ask(at, '/api/auth/me', { token: account }),
        await ask(at, '/api/keys', { json: { scopes: ['read'] }, token: account }),
        await ask(at, '/api/keys', { token: account }),
        await ask(at, '/api/secrets/rotate', { json: {}, token: account }),
        await ask(at, '/api/secrets', { token: account }),
        await ask(at, '/api/audit', { token: account }),
        await ask(at, '/api/auth/login', { json: { email, password: PASSWORD } }),
        ...(await Promise.all(
          ['customers', `customers?email=${email}`, 'audit', 'replicas'].map(what =>
            ask(at, `/admin/${what}`, { token: settings.ADMIN_TOKEN }),
          ),
        )),
      ]
      return answers.map(({ status }) => status)
    }
    return (await Promise.all(Array.from({ length: 10 }, one))).flat()
  }

  const good = (statuses: number[]) => [...new Set(statuses)].filter(status => status >= 300)

  test('a server brings an older schema up to date as it starts', async () => {
    await makeOlder()
    expect(await recorded()).toHaveLength(journal.length - 1)
    const assay = await start()
    expect(await recorded()).toEqual(journal.map(({ when }) => when))
    expect(await ready(assay)).toEqual(ALL_WELL)
    expect(good(await everything(assay))).toEqual([])
  })

  test('a server on a newer schema starts, changes nothing and is ready', async () => {
    await migrate(async statement => [await sql.unsafe(statement)].flat(2) as never)
    await makeNewer()
    const before = [await recorded(), [...(await columns())]]
    const assay = await start()
    expect([await recorded(), [...(await columns())]]).toEqual(before)
    expect(await ready(assay)).toEqual(ALL_WELL)
    expect(good(await everything(assay))).toEqual([])
  })

  test('a server that runs while the schema gets newer goes on, without one answer of 503', async () => {
    const assay = await start()
    const { access_token, refresh_token } = await issue(assay, (await signUp(assay)).apiKey, 'user-1')
    expect(good(await everything(assay))).toEqual([])
    await makeNewer()
    expect(good(await everything(assay))).toEqual([])
    expect(await verify(assay, access_token)).toBe(200)
    expect((await refresh(assay, refresh_token)).status).toBe(200)
    expect(await ready(assay)).toEqual(ALL_WELL)
    expect(logLines(assay).filter(({ level }) => level >= 40)).toEqual([])
  })
})

test('a migration that waits for a long transaction keeps waiting whoever comes after it, until that ends', async () => {
  const assay = await start()
  const { apiKey } = await signUp(assay)
  const { access_token, refresh_token } = await issue(assay, apiKey, 'user-1')
  const long = control(database.url)
  await long.unsafe('begin; select from assay.sessions')
  const migrated = sql.begin(async sql => {
    await sql`set local statement_timeout = 0`
    await sql`alter table assay.sessions add column of_the_next_version text`
  })
  await until('it waits', async () => {
    const [waiting] =
      await long`select from pg_locks where not granted and relation = 'assay.sessions'::regclass`
    return waiting !== undefined
  })
  const began = performance.now()
  expect((await refresh(assay, refresh_token)).status).toBe(503)
  expect(performance.now() - began).toBeLessThan(6_000)
  expect(await verify(assay, access_token)).toBe(200)
  await long`commit`
  await migrated
  expect((await refresh(assay, refresh_token)).status).toBe(200)
  await long.end()
})

describe('a new master key', () => {
  test('in two rounds, no replica meets a customer that it can’t open', async () => {
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

  test('in one, replicas that lack it say 503 about who signs up', async () => {
    const [older, newer] = [await start(), await start({ MASTER_KEYS: `${m2},${m1}` })]
    const [known, unknown] = [(await signUp(older)).account, (await signUp(newer)).account]
    expect([await verify(newer, known), await verify(newer, unknown)]).toEqual([200, 200])
    expect([await verify(older, known), await verify(older, unknown)]).toEqual([200, 503])
  })
})

const page = readFileSync(join(ROOT, 'docs/running.md'), 'utf8')

test('every statement that the page shows can be pasted', async () => {
  await (await start()).stop('SIGINT')
  const blocks = [...page.matchAll(/^ *```sql\n(.*?)^ *```$/gms)].map(([, statements]) => statements!)
  expect(blocks.length).toBeGreaterThan(2)
  for (const block of blocks) await sql.unsafe(`begin; ${block}; rollback`)
})

describe.skipIf(!findProgram('pg_dump'))('a restore (skipped where pg_dump is not installed)', () => {
  /** The first block of a section, as an operator pastes it. */
  const block = (section: string, language: string) =>
    new RegExp(`^## ${section}$.*?^ *\`\`\`${language}$(.*?)^ *\`\`\`$`, 'ms').exec(page)![1]!
  let folder: string
  const paste = (commands: string) =>
    run('sh', ['-ec', commands], {
      cwd: folder,
      env: { PATH: process.env.PATH, DATABASE_URL: direct(database.url) },
    })

  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'assay-restore-'))
    expect(block('Backup', 'sh')).toContain('pg_dump')
    expect(block('Restore', 'sh')).toContain('pg_restore')
    expect(block('Restore', 'sql')).toContain('update assay.customers')
  })
  afterAll(() => rmSync(folder, { recursive: true }))

  /** A day's work, a backup, another day's, and the loss of the database. */
  async function lose() {
    const assay = await start()
    const ann = await signUp(assay)
    const keep = await issue(assay, ann.apiKey, 'keeps')
    const revoked = await issue(assay, ann.apiKey, 'is revoked')
    const carl = await signUp(assay)
    const first = await ask(assay, '/api/keys', { json: { scopes: ['read'] }, token: ann.account })
    await paste(block('Backup', 'sh'))

    const kept = await refresh(assay, (await refresh(assay, keep.refresh_token)).json.refresh_token)
    const later = await issue(assay, ann.apiKey, 'comes later')
    await ask(assay, '/revoke', { form: { token: revoked.refresh_token }, token: ann.apiKey })
    expect(await verify(assay, revoked.access_token)).toBe(401)
    await ask(assay, `/api/keys/${first.json.id}`, { token: ann.account, method: 'DELETE' })
    const second = await ask(assay, '/api/keys', { json: { scopes: ['read'] }, token: ann.account })
    const bob = await signUp(assay)
    // His tokens bear numbers that the backup's sequence has still to give.
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

  test('brings back what was there, and what ended since', async () => {
    const { ann, bob, kept, revoked, later, rotated, deleted, made } = await lose()
    await paste(block('Restore', 'sh'))
    const assay = await start()
    expect(await ready(assay)).toEqual(ALL_WELL)

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
    await paste(block('Restore', 'sh'))
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

  test('must be done before a replica starts: one on an empty database is another installation', async () => {
    const { ann, kept } = await lose()
    await sql`drop schema assay cascade`
    const assay = await start()
    expect(await ready(assay)).toEqual(ALL_WELL)
    expect(await verify(assay, kept.access_token)).toBe(401)
    expect((await refresh(assay, kept.refresh_token)).status).toBe(400)
    expect(await keyWorks(assay, ann.apiKey)).toBe(401)
  })
})

test('a URL with several hosts is not taken', async () => {
  const { code, stderr } = await runAssay({
    ...settings,
    DATABASE_URL: 'postgres://a@10.0.0.1:5432,10.0.0.2:5432/b',
  })
  expect(code).toBe(78)
  expect(stderr).toContain('DATABASE_URL')
})
