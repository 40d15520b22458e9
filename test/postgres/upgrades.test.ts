import { randomBytes } from 'node:crypto'
import postgres from 'postgres'
import { afterAll, beforeAll, beforeEach, describe, expect, inject, test } from 'vitest'
import { VERSION } from '../../server/lib/version.ts'
import { ALL_WELL, ask, checksOf, issue, logIn, refresh, signUp, verify } from '../support/calls.ts'
import { control, createEmptyDatabase } from '../support/database.ts'
import { MIGRATIONS } from '../support/migrations.ts'
import { makeNextVersion, type NextVersion } from '../support/next-version.ts'
import { logLines, type Running, runAssay, startAssay, stopAll, until } from '../support/process.ts'
import { copyDatabase } from '../support/templates.ts'
import type { Tokens } from '../support/world.ts'

/** Two versions on one database: this one and the next, which has one more migration. Tests the claims of docs/operating.md. */

/** The default MAX_STALENESS (ms). With less, a machine that stalls for a second causes 503s that no migration caused. */
const N = 5_000
const OPERATOR = 'operator-Qm8sVx2Lk9Tz4Wb7Rf1Yc6Hn3Jd5'
const secrets = { MASTER_KEYS: `m1:${randomBytes(32).toString('base64')}`, ADMIN_TOKEN: OPERATOR }

let database: Awaited<ReturnType<typeof copyDatabase>>
let sql: postgres.Sql
let next: NextVersion

beforeAll(async () => {
  next = makeNextVersion()
  await makeDatabase()
})
afterAll(async () => {
  await stopAll()
  await dropDatabase()
  next.remove()
})

async function makeDatabase() {
  database = await copyDatabase()
  sql = control(database.url)
}

async function dropDatabase() {
  await sql.end()
  await database.drop()
}

const settings = () => ({
  // Clients refresh as often as possible.
  TOKENS_PER_MINUTE: '1000000',
  ...secrets,
  DATABASE_URL: database.url,
  // The role that may migrate: whichever version starts first migrates the schema.
  DIRECT_DATABASE_URL: database.migrateUrl,
  ISSUER: 'http://assay.test',
  TRUST_PROXY: '127.0.0.1',
})
const startThis = () => startAssay(settings())
const startNext = () => startAssay(settings(), [], next.main)

const recorded = async () =>
  (await sql`select created_at::float8 as at from assay.migrations order by 1`).map(({ at }) => at)
const columns = async () =>
  (
    await sql`select table_name as table, column_name as column from information_schema.columns
    where table_schema = 'assay' order by 1, 2`
  ).map(({ table, column }) => `${table}.${column}`)
const warnings = (at: Running) => logLines(at).filter(({ level }) => level >= 40)

/** All requests that read or write. Returns the failures, with their reasons. */
async function everything(at: Running): Promise<string[]> {
  const { apiKey: token, account, email } = await signUp(at)
  const { access_token, refresh_token, session_id } = await issue(at, token, 'user-1')
  const operator = (path: string) => ask(at, `/admin/${path}`, { token: OPERATOR })
  const answers = [
    await ask(at, '/verify', { token: access_token }),
    await ask(at, '/introspect', { form: { token: refresh_token }, token }),
    await refresh(at, refresh_token),
    await refresh(at, refresh_token),
    await ask(at, '/issue', { json: {}, token }),
    await ask(at, '/revoke', { form: { token: access_token }, token }),
    await ask(at, `/api/sessions/${session_id}`, { token, method: 'DELETE' }),
    await ask(at, '/api/subjects/revoke', { json: { subject: 'user-1' }, token }),
    await ask(at, '/api/sessions', { token }),
    await ask(at, '/api/auth/me', { token: account }),
    await ask(at, '/api/keys', { json: { scopes: ['read'] }, token: account }),
    await ask(at, '/api/keys', { token: account }),
    await ask(at, '/api/secrets/rotate', { json: {}, token: account }),
    await ask(at, '/api/secrets', { token: account }),
    await ask(at, '/api/audit', { token: account }),
    await ask(at, '/api/auth/login', { json: { email, password: 'correct horse battery' } }),
    await ask(at, '/admin/services', {
      json: { name: `orders-${session_id}`, may: ['introspect'] },
      token: OPERATOR,
    }),
    ...(await Promise.all(
      ['customers', `customers?email=${email}`, 'audit', 'services', 'replicas'].map(operator),
    )),
  ]
  return answers
    .filter(({ status }) => status >= 300)
    .map(({ status, json }) => `${status}: ${json.detail ?? json.error_description}`)
}

/** Ten times concurrently, so that each connection has prepared each statement. */
const everythingTenfold = async (at: Running) =>
  (await Promise.all(Array.from({ length: 10 }, () => everything(at)))).flat()

test('a server migrates an older schema as it starts', async () => {
  await dropDatabase()
  database = await createEmptyDatabase(inject('databaseUrl'))
  sql = postgres(database.migrateUrl, { max: 1, onnotice: () => {} })
  await sql`create table assay.migrations (id serial primary key, hash text not null, created_at bigint not null)`
  for (const { tag, when, text } of MIGRATIONS.slice(0, -1)) {
    await sql.unsafe(text)
    await sql`insert into assay.migrations (hash, created_at) values (${tag}, ${when})`
  }
  const assay = await startThis()
  expect(await recorded()).toEqual(MIGRATIONS.map(({ when }) => when))
  expect(await checksOf(assay)).toEqual(ALL_WELL)
  expect(await everythingTenfold(assay)).toEqual([])
  await assay.stop('SIGINT')
  await dropDatabase()
  await makeDatabase()
})

describe('this version and the next, on one database', () => {
  let older: Running
  let newer: Running
  /** Both directions: an act on one is seen by the other. */
  const ways = () =>
    [
      [older, newer],
      [newer, older],
    ] as const

  test('a running server continues while the next version migrates, without a single 503', async () => {
    older = await startThis()
    expect(await everythingTenfold(older)).toEqual([])
    const before = { columns: await columns(), warnings: warnings(older) }
    const { access_token, refresh_token } = await issue(older, (await signUp(older)).apiKey, 'user-1')
    let migrating = true
    const meanwhile = (async () => {
      const statuses: string[] = []
      while (migrating) statuses.push(`${await verify(older, access_token)}`, ...(await everything(older)))
      return statuses
    })()
    const { code, stderr } = await runAssay(settings(), ['migrate'], next.main)
    migrating = false
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
    expect([...new Set(await meanwhile)]).toEqual(['200'])

    expect(await recorded()).toEqual([...MIGRATIONS.map(({ when }) => when), expect.any(Number)])
    expect((await columns()).length).toBeGreaterThan(before.columns.length + 20)
    expect(await columns()).toEqual(expect.arrayContaining(before.columns))
    expect(await everythingTenfold(older)).toEqual([])
    expect((await refresh(older, refresh_token)).status).toBe(200)
    expect(await checksOf(older)).toEqual(ALL_WELL)
    expect(warnings(older)).toEqual(before.warnings)
  })

  test('the next one starts beside it, and operators see both with their versions', async () => {
    newer = await startNext()
    expect(await checksOf(newer)).toEqual(ALL_WELL)
    expect(await checksOf(older)).toEqual(ALL_WELL)
    for (const at of [older, newer]) {
      const { replicas } = (await ask(at, '/admin/replicas', { token: OPERATOR })).json
      expect(replicas.map((replica: { version: string }) => replica.version).sort()).toEqual([
        VERSION,
        next.version,
      ])
    }
  })

  test('tokens issued by either are valid on the other', async () => {
    for (const [here, there] of ways()) {
      const { apiKey, account, email } = await signUp(here)
      expect(await verify(there, account)).toBe(200)
      expect(await verify(there, (await issue(here, apiKey, 'user-1')).access_token)).toBe(200)
      expect(await verify(here, (await issue(there, apiKey, 'user-2')).access_token)).toBe(200)
      expect(await verify(here, (await logIn(there, email)).access_token)).toBe(200)
    }
  })

  test('a session moves between both, a lost answer is replayed by the other, and reuse is detected there', async () => {
    for (const [here, there] of ways()) {
      const { apiKey } = await signUp(here)
      const first = await issue(here, apiKey, 'user-1')
      let { refresh_token } = first
      for (const at of [there, here, here, there, there, here]) {
        const lost = await refresh(at === here ? there : here, refresh_token)
        const { status, json } = await refresh(at, refresh_token)
        expect([status, json.refresh_token]).toEqual([200, lost.json.refresh_token])
        expect(await verify(here, json.access_token)).toBe(200)
        expect(await verify(there, json.access_token)).toBe(200)
        refresh_token = json.refresh_token
      }
      expect((await refresh(there, first.refresh_token)).json.error).toBe('invalid_grant')
      expect((await refresh(here, refresh_token)).json.error).toBe('invalid_grant')
    }
  })

  /** Waits until the other refuses it. Returns how long after the acknowledgement the last request was sent (ms). */
  async function untilRefused(at: Running, token: string) {
    const acknowledged = performance.now()
    let sent = acknowledged
    await until('the other refuses it', async () => {
      sent = performance.now()
      return (await verify(at, token)) === 401
    })
    return sent - acknowledged
  }

  const ENDS: Record<string, (at: Running, of: Of) => Promise<{ status: number }>> = {
    'a token that is revoked': (at, { tokens, apiKey: token }) =>
      ask(at, '/revoke', { form: { token: tokens.access_token }, token }),
    'a session that is ended': (at, { tokens, apiKey: token }) =>
      ask(at, `/api/sessions/${tokens.session_id}`, { token, method: 'DELETE' }),
    'a subject that is revoked': (at, { apiKey: token }) =>
      ask(at, '/api/subjects/revoke', { json: { subject: 'user-1' }, token }),
    'a secret that is rotated at once': (at, { account: token }) =>
      ask(at, '/api/secrets/rotate', { json: { use: 'access', now: true }, token }),
    'a customer that is disabled': (at, { id }) =>
      ask(at, `/admin/customers/${id}/disable`, { json: {}, token: OPERATOR }),
  }
  type Of = Awaited<ReturnType<typeof someone>>

  async function someone(at: Running) {
    const { apiKey, account } = await signUp(at)
    const { id } = (await ask(at, '/api/auth/me', { token: account })).json
    return { apiKey, account, id: id as string, tokens: await issue(at, apiKey, 'user-1') }
  }

  test.each(Object.entries(ENDS))('%s on either is refused by the other within the bound', async (_, end) => {
    for (const [here, there] of ways()) {
      const of = await someone(here)
      expect(await verify(there, of.tokens.access_token)).toBe(200)
      expect((await end(here, of)).status).toBeLessThan(300)
      expect(await untilRefused(there, of.tokens.access_token)).toBeLessThan(N + 50)
    }
  })

  test('with wait=all a revocation on either is refused by the other as soon as it is answered', async () => {
    for (const [here, there] of ways()) {
      const { apiKey: token, tokens } = await someone(here)
      expect(await verify(there, tokens.access_token)).toBe(200)
      await ask(here, '/revoke', { form: { token: tokens.access_token, wait: 'all' }, token })
      expect(await verify(there, tokens.access_token)).toBe(401)
    }
  })

  test('a secret rotated on either signs on both, and tokens of the old one stay valid', async () => {
    for (const [here, there] of ways()) {
      const { apiKey, account, tokens } = await someone(here)
      const kidOf = ({ access_token }: Tokens) =>
        JSON.parse(Buffer.from(access_token.split('.')[0]!, 'base64url').toString()).kid
      expect((await ask(here, '/api/secrets/rotate', { json: {}, token: account })).status).toBe(200)
      const fresh = [await issue(here, apiKey, 'user-2'), await issue(there, apiKey, 'user-2')] as const
      expect(kidOf(fresh[0])).toBe(kidOf(fresh[1]))
      expect(kidOf(fresh[0])).not.toBe(kidOf(tokens))
      for (const at of [here, there])
        for (const { access_token } of [tokens, ...fresh]) expect(await verify(at, access_token)).toBe(200)
      expect((await refresh(there, tokens.refresh_token)).status).toBe(200)
    }
  })

  test('this one, restarted on the newer schema, logs that it is newer, changes nothing and is ready', async () => {
    const { access_token, refresh_token } = (await someone(newer)).tokens
    const before = [await recorded(), await columns()]
    expect(await older.stop('SIGINT')).toBe(0)
    older = await startThis()
    expect(warnings(older).map(({ msg }) => msg)).toEqual([
      expect.stringContaining('a newer version has migrated this database'),
    ])
    expect([await recorded(), await columns()]).toEqual(before)
    expect(await checksOf(older)).toEqual(ALL_WELL)
    expect(await everythingTenfold(older)).toEqual([])
    expect(await verify(older, access_token)).toBe(200)
    expect((await refresh(older, refresh_token)).status).toBe(200)
  })

  test('after going back to this version alone, it has everything that was done on both', async () => {
    const { apiKey, account, tokens } = await someone(newer)
    const revoked = await issue(newer, apiKey, 'user-2')
    await ask(newer, '/revoke', { form: { token: revoked.refresh_token }, token: apiKey })
    await ask(newer, '/api/secrets/rotate', { json: {}, token: account })
    const ofNewSecret = await issue(newer, apiKey, 'user-3')
    expect(await newer.stop('SIGINT')).toBe(0)

    for (const { access_token, refresh_token } of [tokens, ofNewSecret]) {
      expect(await verify(older, access_token)).toBe(200)
      expect((await refresh(older, refresh_token)).status).toBe(200)
    }
    expect(await verify(older, revoked.access_token)).toBe(401)
    expect(await everythingTenfold(older)).toEqual([])
    expect((await runAssay(settings(), ['migrate'])).code).toBe(0)
    newer = await startNext()
    expect(await checksOf(newer)).toEqual(ALL_WELL)
    expect(warnings(newer)).toEqual([])
  })
})

/** Several clients refresh their sessions and get tokens, one call after another, until the migration has ended. */
async function serveDuring(assay: Running, migrated: ReturnType<typeof runAssay>) {
  const { apiKey } = await signUp(assay)
  let ended = false
  void migrated.finally(() => {
    ended = true
  })
  async function client(subject: string) {
    let { refresh_token } = await issue(assay, apiKey, subject)
    while (!ended) {
      const began = performance.now()
      const { status, json } = await refresh(assay, refresh_token)
      expect(status).toBe(200)
      await issue(assay, apiKey, subject)
      expect(performance.now() - began).toBeLessThan(4_000)
      refresh_token = json.refresh_token
    }
  }
  await Promise.all(['user-1', 'user-2', 'user-3', 'user-4'].map(client))
  return migrated
}

describe('a migration while clients are served: no call fails or takes long', () => {
  const migrate = () => runAssay(settings(), ['migrate'], next.main)
  let assay: Running
  let before: number[]

  beforeEach(async () => {
    await stopAll()
    await dropDatabase()
    await makeDatabase()
    assay = await startThis()
    before = await recorded()
  })

  test('gets every table lock, although the clients’ statements lock the same tables in other orders', async () => {
    expect(await serveDuring(assay, migrate())).toEqual({ code: 0, stdout: '', stderr: '' })
    expect(await recorded()).toHaveLength(before.length + 1)
  })

  test('that cannot lock a table tries again, and gives up with an error', async () => {
    const long = control(database.url)
    await long.unsafe('begin; select from assay.sessions')
    expect(await serveDuring(assay, migrate())).toMatchObject({
      code: 69,
      stderr: expect.stringMatching(
        /^assay: .* a table that another transaction uses; end the longest transactions .*\n$/,
      ),
    })
    expect(await recorded()).toEqual(before)
    const second = migrate()
    await until('it is under way', async () => {
      const [waits] =
        await sql`select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`
      return waits !== undefined
    })
    await long`commit`
    expect(await serveDuring(assay, second)).toMatchObject({ code: 0, stderr: '' })
    expect(await recorded()).toHaveLength(before.length + 1)
    await long.end()
  })
})
