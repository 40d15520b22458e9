import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { open } from '../../db/client.ts'
import { findBinaries, type OwnPostgres, startPostgres } from '../../faults/postgres.ts'
import { ask, issue, refresh, signUp, verify } from '../support/calls.ts'
import {
  changed,
  createDatabase,
  createEmptyDatabase,
  MIGRATES,
  PASSWORD,
  runRolesSql,
  SERVES,
} from '../support/database.ts'
import { makeNextVersion } from '../support/next-version.ts'
import { type Running, runAssay, runCli, startAssay, stopAll } from '../support/process.ts'

/** H58: the privileges that Assay needs in a database and for its roles, and its errors when they are missing. */

const ROOT = join(import.meta.dirname, '../..')
const secrets = {
  MASTER_KEYS: `m1:${Buffer.alloc(32, 'a master key of a test').toString('base64')}`,
  ADMIN_TOKEN: 'operator-Qm8sVx2Lk9Tz4Wb7Rf1Yc6Hn3Jd5',
  TRUST_PROXY: '127.0.0.1',
}

let server: OwnPostgres
const present = findBinaries() !== undefined

beforeAll(async () => {
  if (present)
    server = await startPostgres({ settings: [`log_statement = 'ddl'`, `log_line_prefix = '%u@%d '`] })
})
afterEach(stopAll)
afterAll(() => server?.stop())

const start = (url: string, program?: string) => startAssay({ ...secrets, DATABASE_URL: url }, [], program)
const migrate = (url: string, program?: string) => runAssay({ DATABASE_URL: url }, ['migrate'], program)
const databaseOf = (url: string) => new URL(url).pathname.slice(1)
/** A statement in the database of `url`, as a superuser. */
const administer = (url: string, statement: string) => server.ask(statement, databaseOf(url))

/** Moves every event of a table into a month that is dropped. */
const MOVE = (table: string) => `update assay.${table} set at = '2001-01-01'`

/** As if a replica had just checked the clock. */
const TRUST = 'update assay.database_clock set observed_at = assay.now()'

/** Writes and reads something of each kind. */
async function expectServing(assay: Running) {
  const { account, apiKey } = await signUp(assay)
  const { access_token, refresh_token } = await issue(assay, apiKey, 'user-1 名')
  expect(await verify(assay, access_token)).toBe(200)
  const refreshed = await refresh(assay, refresh_token)
  expect(refreshed.status).toBe(200)
  expect((await ask(assay, '/revoke', { form: { token: access_token }, token: apiKey })).status).toBe(200)
  expect(await verify(assay, access_token)).toBe(401)
  const { json } = await ask(assay, '/api/audit', { token: account })
  expect(json.events.map(({ type }: { type: string }) => type)).toEqual(
    expect.arrayContaining(['customer.signed_up', 'token.issued', 'session.refreshed', 'token.revoked']),
  )
  await expectKeyPairs(assay)
}

/** Creates, publishes, uses and retires keys, with the privileges and locale of the serving role. */
async function expectKeyPairs(assay: Running) {
  const operator = secrets.ADMIN_TOKEN
  const { apiKey, email } = await signUp(assay)
  const found = await ask(assay, `/admin/customers?email=${email}`, { token: operator })
  const customer = `/admin/customers/${found.json.customers[0].id}`
  const issued = async () => (await issue(assay, apiKey, 'user-1')).access_token
  const algs = async () => {
    const { local_verification } = (await ask(assay, customer, { token: operator })).json
    const path = new URL(local_verification.jwks_uri).pathname
    return (await ask(assay, path)).json.keys.map(({ alg }: { alg: string }) => alg)
  }
  const setAlg = (signing_alg: string) =>
    ask(assay, `${customer}/policy`, { method: 'PUT', json: { signing_alg }, token: operator })

  expect((await setAlg('EdDSA')).status).toBe(200)
  const old = await issued()
  expect(await verify(assay, old)).toBe(200)
  expect((await setAlg('ES256')).status).toBe(200)
  expect(await algs()).toEqual(['EdDSA', 'ES256'])
  const now = { use: 'access', now: true }
  expect((await ask(assay, `${customer}/secrets/rotate`, { json: now, token: operator })).status).toBe(200)
  expect(await verify(assay, old)).toBe(401)
  expect(await verify(assay, await issued())).toBe(200)
  expect(await algs()).toEqual(['ES256', 'ES256'])
}

async function expectRefused(url: string, code: 69 | 78, why: RegExp, program?: string) {
  const assay = await runAssay({ ...secrets, DATABASE_URL: url }, [], program)
  expect(assay.stderr).toMatch(why)
  expect(assay.stderr).not.toMatch(/^\s+at /m)
  expect({ code: assay.code, stdout: assay.stdout }).toEqual({ code, stdout: '' })
}

async function expectFinding(url: string, check: string, state: 'warning' | 'wrong', found: RegExp) {
  const { stdout, stderr } = await runCli({ ...secrets, DATABASE_URL: url }, [
    'doctor',
    '--offline',
    '--json',
  ])
  expect(stderr).not.toMatch(/^\s+at /m)
  const findings: { check: string; state: string; found: string }[] = JSON.parse(stdout)
  expect(findings.filter(one => one.check === check)).toEqual([
    expect.objectContaining({ check, state, found: expect.stringMatching(found) }),
  ])
}

describe.skipIf(!present)('H58 two roles', () => {
  test('as created from deploy/postgres/roles.sql by a database owner: one migrates, the other serves', async () => {
    await server.ask(`create role dba login createrole password 'dba'`)
    await server.ask('create database shop owner dba')
    const at = (role: string) => changed(server.url, { pathname: '/shop', username: role, password: role })
    const psql = (...args: string[]) =>
      promisify(execFile)(join(findBinaries()!, 'psql'), ['-X', '-v', 'ON_ERROR_STOP=1', ...args, at('dba')])
    await psql('-f', join(ROOT, 'deploy/postgres/roles.sql'))
    for (const role of ['assay_migrate', 'assay_serve'])
      await psql('-c', `alter role ${role} password '${role}'`)

    await expectRefused(
      at('assay_serve'),
      78,
      /is not set up for Assay yet, and this role can't change that\. Run `npm run migrate`/,
    )
    expect(await migrate(at('assay_migrate'))).toEqual({ code: 0, stdout: '', stderr: '' })
    expect(server.log()).toMatch(/^assay_migrate@shop .*create sequence/im)
    const before = server.log().length
    await expectServing(await start(at('assay_serve')))
    expect(server.log().slice(before)).not.toMatch(/^assay_serve@shop .*(create|alter|drop|grant|revoke) /im)
  })

  test('through an upgrade: the serving one waits for the migrating one', async () => {
    const next = makeNextVersion()
    const { url, migrateUrl } = await createDatabase(server.url)
    await expectRefused(url, 69, /has an older schema assay, and this role can't change that/, next.main)
    expect((await migrate(migrateUrl, next.main)).code).toBe(0)
    await expectServing(await start(url, next.main))
    await expectServing(await start(url))
    next.remove()
  })

  test('the schema’s owner may serve too, without the privilege to create schemas', async () => {
    const { migrateUrl } = await createEmptyDatabase(server.url)
    expect(
      await administer(
        migrateUrl,
        `select has_database_privilege('${MIGRATES}', current_database(), 'create')`,
      ),
    ).toBe('f')
    for (let starts = 0; starts < 2; starts++) {
      const assay = await start(migrateUrl)
      await expectServing(assay)
      await assay.stop('SIGINT')
    }
  })

  test('an installation with one role gets two, and its role keeps everything outside the schema', async () => {
    await server.ask(`create role single login password 'single'`)
    await server.ask('create database single owner single')
    const at = (role: string) =>
      changed(server.url, { pathname: '/single', username: role, password: encodeURIComponent(PASSWORD) })
    const url = changed(server.url, { pathname: '/single', username: 'single', password: 'single' })
    const one = await start(url)
    await expectServing(one)
    await one.stop('SIGINT')
    await administer(url, 'create table public.invoices (); alter table public.invoices owner to single')

    await runRolesSql(changed(server.url, { pathname: '/single' }))
    const owners = `select distinct pg_get_userbyid(relowner) from pg_class where relnamespace = 'assay'::regnamespace
      union select pg_get_userbyid(proowner) from pg_proc where pronamespace = 'assay'::regnamespace
      union select pg_get_userbyid(nspowner) from pg_namespace where nspname = 'assay'`
    expect(await administer(url, owners)).toBe(MIGRATES)
    expect(await administer(url, `select tableowner from pg_tables where tablename = 'invoices'`)).toBe(
      'single',
    )
    expect(
      await administer(url, `select pg_get_userbyid(datdba) from pg_database where datname = 'single'`),
    ).toBe('single')
    expect((await migrate(at(MIGRATES))).code).toBe(0)
    await expectServing(await start(at(SERVES)))
  })

  test('a privilege that the serving one lacks is named', async () => {
    const { url } = await createDatabase(server.url)
    await administer(url, `revoke insert, update on assay.customers from ${SERVES}`)
    await administer(url, `revoke usage on sequence assay.epochs from ${SERVES}`)
    const missing = /lacks rights in the schema assay: insert, update on customers; usage on epochs/
    await expectRefused(url, 78, missing)
    await expectFinding(url, 'privileges', 'wrong', missing)
    await administer(url, `revoke usage on schema assay from ${SERVES}`)
    await expectRefused(
      url,
      78,
      /lacks rights on this database or its schema assay; grant them as deploy\/postgres/,
    )
    await expectFinding(url, 'migrations', 'wrong', /lacks rights on this database or its schema assay/)
    await administer(url, `revoke connect on database ${databaseOf(url)} from public, ${SERVES}`)
    await expectRefused(url, 78, /lacks rights on this database/)
    await expectFinding(url, 'database', 'wrong', /lacks rights on this database/)
  })

  test('the serving one deletes nothing of the last two days of the audit, and drops no table', async () => {
    const { url } = await createDatabase(server.url)
    const db = await open({ url })
    const refused = (statement: string, sqlstate: string) =>
      expect(db.query(statement)).rejects.toMatchObject({ sqlstate })
    const months = () =>
      administer(url, `select inhrelid from pg_inherits where inhparent = 'assay.audit_events'::regclass`)
    const partitions = () =>
      db.query<{ name: string }>(
        `select relname as name from pg_class where relispartition and relnamespace = 'assay'::regnamespace and relkind = 'r'`,
      )
    await db.query('select assay.make_audit_partitions()')
    expect(await partitions()).toHaveLength(5)
    const before = await months()
    for (const retention of ['0', '-1', '172799', 'null', `'-infinity'`])
      for (const name of ['detach_audit_partition', 'drop_audit_partition'])
        await refused(`select assay.${name}(${retention})`, '22023')
    for (const retention of ['0', '-1', '172799', 'null', `'-infinity'`])
      await refused(`select assay.delete_audit_events(${retention}, 100)`, '22023')
    await refused('delete from assay.audit_events', '42501')
    await refused('truncate assay.audit_events', '42501')
    for (const { name } of await partitions())
      for (const act of [`delete from assay.${name}`, `truncate assay.${name}`, `${MOVE(name)}`])
        await refused(act, '42501')
    await refused(MOVE('audit_events'), '42501')
    await refused('drop table assay.sessions', '42501')
    await refused('create table assay.mine ()', '42501')
    // Its own tables with the names of system tables are not the ones that the function reads.
    await db.query(TRUST)
    await db.query(`do $$ begin
      create temp table pg_class as select 1::oid as oid, 'audit_events_1999_01'::name as relname;
      create temp table pg_inherits as select 1::oid as inhrelid, 'assay.audit_events'::regclass::oid as inhparent;
      perform assay.detach_audit_partition(172800);
      perform assay.drop_audit_partition(172800);
    end $$`)
    expect(await months()).toEqual(before)
    await db.close()
  })

  test('that take over the schema of one role: the serving one still deletes nothing from the audit', async () => {
    const { url } = await createDatabase(server.url)
    await administer(url, `grant all on all tables in schema assay to ${SERVES}`)
    await administer(url, `grant all on all sequences in schema assay to ${SERVES}`)
    await runRolesSql(url)
    const db = await open({ url })
    const tables = await db.query<{ name: string }>(
      `select relname as name from pg_class where relname like 'audit\\_events%' and relkind in ('r', 'p')`,
    )
    expect(tables).toHaveLength(6)
    for (const { name } of tables)
      for (const act of [`delete from assay.${name}`, MOVE(name)])
        await expect(db.query(act)).rejects.toMatchObject({ sqlstate: '42501' })
    // It would hide the next events from readers of the order.
    const setBack = db.query(`select setval('assay.audit_event_ids', 1)`)
    await expect(setBack).rejects.toMatchObject({ sqlstate: '42501' })
    await db.close()
    await expectServing(await start(url))
  })

  test('a month begins and ends in UTC in any session of its creator, and a recent event keeps it', async () => {
    const { url } = await createDatabase(server.url)
    const last = await administer(
      url,
      `select max(relname) from pg_class where relname ~ '^audit_events_\\d' and relkind = 'r'`,
    )
    await administer(url, `drop table assay.${last}`)
    const odd = `set datestyle = 'SQL, MDY'; set timezone = 'UTC-167'`
    await administer(url, `${odd}; select assay.make_audit_partitions()`)
    const bounds = await administer(
      url,
      `set timezone = 'UTC'; select pg_get_expr(relpartbound, oid) from pg_class where relname = '${last}'`,
    )
    const midnight = `\\('\\d{4}-\\d\\d-01 00:00:00\\+00'\\)`
    expect(bounds).toMatch(new RegExp(`^FOR VALUES FROM ${midnight} TO ${midnight}$`))
    // A month with a wrong name.
    await administer(
      url,
      `set role ${MIGRATES}; create table assay.audit_events_2001_01 partition of assay.audit_events
      for values from ('2100-01-01') to ('2100-02-01')`,
    )
    await administer(url, `insert into assay.audit_events (at, type, actor) values ('2100-01-15', 'x', 'x')`)
    await administer(url, TRUST)
    expect(await administer(url, 'select assay.detach_audit_partition(172800) is null')).toBe('t')
    await administer(url, 'delete from assay.audit_events')
    expect(await administer(url, 'select assay.detach_audit_partition(172800)')).toBe('audit_events_2001_01')
    // The week is counted from a comment that the serving role can't change.
    const db = await open({ url })
    await expect(
      db.query(`comment on table assay.audit_events_2001_01 is 'detached at 2001-01-01'`),
    ).rejects.toMatchObject({ sqlstate: '42501' })
    await expect(db.query('delete from assay.audit_events_2001_01')).rejects.toMatchObject({
      sqlstate: '42501',
    })
    await expectServing(await start(url))
    expect(await db.query('select assay.drop_audit_partition(172800) as name')).toEqual([{ name: null }])
    await db.close()
  })

  test('a third one with access to the schema may call none of the functions that change it', async () => {
    const { url } = await createDatabase(server.url)
    await server.ask(`create role stranger login password 'stranger'`)
    await administer(url, 'grant usage on schema assay to stranger')
    const db = await open({ url: changed(url, { username: 'stranger', password: 'stranger' }) })
    for (const call of [
      'make_audit_partitions()',
      'detach_audit_partition(1e9)',
      'drop_audit_partition(1e9)',
    ])
      await expect(db.query(`select assay.${call}`)).rejects.toMatchObject({ sqlstate: '42501' })
    await db.close()
  })
})

describe.skipIf(!present)('H58 a database', () => {
  test.each(['LATIN1', 'SQL_ASCII'])(
    'with the encoding %s is refused before anything is written',
    async encoding => {
      const name = `encoded_${encoding.toLowerCase()}`
      await server.ask(`create database ${name} encoding '${encoding}' locale 'C' template template0`)
      const url = changed(server.url, { pathname: `/${name}` })
      await expectRefused(
        url,
        78,
        new RegExp(`encoding is ${encoding}, and Assay needs UTF8; create another one`),
      )
      await expectFinding(
        url,
        'database encoding',
        'wrong',
        new RegExp(`it is ${encoding}, and Assay needs UTF8`),
      )
      expect(await administer(url, `select to_regnamespace('assay') is null`)).toBe('t')
    },
  )

  test('that is read-only is refused with the setting to turn off', async () => {
    const { url } = await createDatabase(server.url)
    await server.ask(`alter database ${databaseOf(url)} set default_transaction_read_only = on`)
    await expectRefused(url, 69, /it is read-only: default_transaction_read_only is on/)
    await expectFinding(url, 'database', 'wrong', /^it is read-only: default_transaction_read_only is on/)
    await server.ask(`alter database ${databaseOf(url)} reset default_transaction_read_only`)
    await expectServing(await start(url))
  })

  test('whose connection limit for this role is too low gets a warning', async () => {
    const { url } = await createDatabase(server.url)
    await server.ask(`alter role ${SERVES} connection limit 11`)
    await expectFinding(url, 'connections', 'warning', /^11 allowed/)
    await server.ask(`alter role ${SERVES} connection limit -1`)
  })

  test('with Turkish rules for letters and other output formats works the same', async () => {
    const { url } = await createDatabase(server.url)
    const name = `${databaseOf(url)}_tr`
    await server.ask(
      `create database ${name} locale_provider icu icu_locale 'tr-TR' locale 'C' encoding 'UTF8' template template0`,
    )
    const turkish = changed(server.url, { pathname: `/${name}` })
    for (const [setting, value] of Object.entries({
      TimeZone: 'Asia/Kathmandu',
      DateStyle: 'German, DMY',
      IntervalStyle: 'sql_standard',
      bytea_output: 'escape',
      extra_float_digits: '0',
      search_path: 'nowhere',
      standard_conforming_strings: 'off',
      default_transaction_isolation: 'serializable',
      synchronous_commit: 'off',
    }))
      await server.ask(`alter database ${name} set ${setting} = '${value}'`)
    const assay = await start(turkish)
    await expectServing(assay)
    const login = { email: 'ISTANBUL@EXAMPLE.COM', password: 'correct horse battery' }
    expect((await ask(assay, '/api/auth/signup', { json: login })).status).toBe(201)
    expect(
      (await ask(assay, '/api/auth/login', { json: { ...login, email: 'istanbul@example.com' } })).status,
    ).toBe(200)
    expect(
      (await ask(assay, '/api/auth/signup', { json: { ...login, email: 'Istanbul@example.com' } })).status,
    ).toBe(409)
  })
})
