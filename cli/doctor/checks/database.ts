import { type Database, open } from '../../../db/client.ts'
import { SchemaError } from '../../../db/errors.ts'
import { findMissingPrivileges } from '../../../db/privileges.ts'
import { findMasterKeys, findNeededMasterKeys } from '../../../db/queries/customer-keys.ts'
import { findClock } from '../../../db/queries/database-clock.ts'
import { assertNoGaps, stateOfSchema } from '../../../db/schema-check.ts'
import { inspect, type Server } from '../../../db/server-info.ts'
import type { Config } from '../../../server/config/load.ts'
import { checkValue } from '../../../server/crypto/envelope.ts'
import { describeFailure } from '../../../server/exit-codes.ts'
import { checkDirectUrl, findUnsafeSettings } from '../../../server/open-database.ts'
import { type CheckResult, failedCheck, ok, type Report, warning, wrong } from '../result.ts'
import { transactions } from './transactions.ts'
import { commits, disk } from './writes.ts'

const MIN_SERVER_VERSION = 150_000
/** The connections of one process: ten for calls, one for the poll and one for notifications. */
const CONNECTIONS_PER_REPLICA = 12

/** Checks the connection to the database and its content, without a server. Never throws: a failed check is a finding. */
export async function database(config: Config, url: string, report: Report) {
  const check = async (name: string, look: () => Promise<CheckResult>) => {
    const found = await look().catch(asFinding)
    report(name, found)
    return found
  }
  if ((await check('database', () => reach(url, config))).state !== 'ok') return
  const server = await inspect(url)
  for (const { name, value, needed } of server.unfit) report('pooler', unfit(name, value, needed))
  const db = await open({ url })
  try {
    await check('database settings', () => databaseSettings(db))
    await check('database version', () => version(db))
    await check('database encoding', async () => encoding(server))
    await check('database clock', () => clock(db))
    await check('database disk', () => disk(db))
    await check('commits', () => commits(db))
    await check('transactions', () => transactions(db))
    await check('connections', () => connections(db, config))
    const migrated = await check('migrations', () => migrations(db))
    await check('privileges', () => privileges(db, migrated))
    if (migrated.state !== 'ok') return
    await check('installation', () => installation(db, server))
    await check('deletion', () => deletion(db))
    await check('master keys', () => masterKeys(db, config))
  } finally {
    await db.close()
  }
}

/** An error as a finding: what failed, without any text of the statement or the URL, and how to fix it. */
function asFinding(error: unknown): CheckResult {
  if (error instanceof SchemaError) return wrong(`the schema assay ${error.found}`, WHOLE)
  try {
    return wrong(
      describeFailure(error).message.replace(/^assay: /, ''),
      'fix DATABASE_URL, or start the database',
    )
  } catch {
    return failedCheck(error)
  }
}

const unfit = (name: string, value: string, needed: string) =>
  wrong(
    `through the pooler ${name} is '${value}', and Assay needs '${needed}'`,
    `alter database NAME set ${name} = '${needed}'; then let the pooler reconnect`,
  )

/** Follows both URLs to their servers. Throws what a start would throw. */
async function reach(url: string, { directDatabaseUrl: direct }: Config): Promise<CheckResult> {
  const found = await inspect(url)
  if (found.standby) return wrong('it is a standby, which is read-only', 'point DATABASE_URL at the primary')
  if (found.readOnly)
    return wrong(
      'it is read-only: default_transaction_read_only is on for the server, the database or the role',
      'turn it off (some providers turn it on when the disk is full), or point DATABASE_URL at a writable database',
    )
  const [problem] = direct === undefined ? [] : checkDirectUrl(found, await inspect(direct))
  if (problem !== undefined) {
    const [what, remedy] = problem.split('; ')
    return wrong(what!, remedy!)
  }
  return ok(`connected to ${found.name}${found.pooled ? ' through a pooler' : ''}`)
}

const encoding = ({ encoding }: Server): CheckResult =>
  encoding === 'UTF8'
    ? ok(encoding)
    : wrong(
        `it is ${encoding}, and Assay needs UTF8`,
        "create another database: create database NAME encoding 'UTF8' template template0",
      )

const readSetting = async (db: Database, name: string) =>
  (await db.query<{ value: string }>(`select current_setting('${name}') as value`))[0]!.value

async function databaseSettings(db: Database): Promise<CheckResult> {
  const off = await findUnsafeSettings(db)
  return off.length === 0
    ? ok('a crash loses no commit')
    : warning(
        `${off.join(' and ')} off: a crash can lose acknowledged revocations`,
        'turn it on in postgresql.conf, unless the platform stores the data itself and turns it off (Neon, Aurora)',
      )
}

async function version(db: Database): Promise<CheckResult> {
  const number = Number(await readSetting(db, 'server_version_num'))
  const shown = await readSetting(db, 'server_version')
  return number >= MIN_SERVER_VERSION
    ? ok(`Postgres ${shown}`)
    : wrong(`Postgres ${shown}`, 'use Postgres 15 or newer')
}

/** Tokens live by the database's clock; logs and callers by this machine's. */
async function clock(db: Database): Promise<CheckResult> {
  const sent = Date.now()
  const [row] = await db.query<{ at: number }>(
    'select (extract(epoch from clock_timestamp()) * 1000)::float8 as at',
  )
  const off = Math.round(Math.abs(row!.at - (sent + Date.now()) / 2))
  return off < 2_000
    ? ok(`within ${Math.max(off, 1)} ms of this machine's`)
    : warning(
        `${Math.round(off / 1000)} s from this machine's`,
        'set both clocks by NTP: tokens expire by the clock of the database',
      )
}

async function connections(db: Database, { workers }: Config): Promise<CheckResult> {
  const [row] = await db.query<{ most: number; used: number }>(
    `select (select least(
        current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int,
        nullif(rolconnlimit, -1), nullif(datconnlimit, -1))
      from pg_roles, pg_database where rolname = current_user and datname = current_database()) as most,
      (select sum(numbackends)::int from pg_stat_database) as used`,
  )
  const needed = CONNECTIONS_PER_REPLICA * (workers === 'auto' ? 1 : workers)
  const found = `${row!.most} allowed, ${row!.used} in use; each replica needs ${needed}`
  return row!.most - row!.used >= needed
    ? ok(found)
    : warning(
        found,
        'raise max_connections or the connection limit of the role or database, lower WORKERS, or use pgbouncer',
      )
}

/** A role that serves reads and writes rows. Another role may apply migrations. */
async function privileges(db: Database, migrated: CheckResult): Promise<CheckResult> {
  if (migrated.state === 'ok') {
    const missing = await findMissingPrivileges(db)
    return missing.length === 0
      ? ok('this role may read and write every table')
      : wrong(`this role lacks rights in the schema assay: ${missing.join('; ')}`, GRANT)
  }
  return (await mayMigrate(db))
    ? ok('this role may create and change the schema assay')
    : warning(
        'this role may not create or change the schema assay, and migrations are pending',
        'run `npm run migrate` with the URL of the role that may; deploy/postgres/roles.sql creates both roles',
      )
}

const GRANT = 'grant them as deploy/postgres/roles.sql does'

async function mayMigrate(db: Database): Promise<boolean> {
  const [row] = await db.query<{ may: boolean }>(
    `select coalesce(
      (select pg_has_role(nspowner, 'usage') from pg_namespace where nspname = 'assay'),
      has_database_privilege(current_database(), 'create')) as may`,
  )
  return row!.may
}

const WHOLE = 'restore the whole backup (docs/operating.md), or point DATABASE_URL at another database'
const MOVED = 'and last served from another database, so it was moved, restored or copied'
const COPIES =
  'if the former database is still served, follow docs/operating.md (Copies) before you start this one'
const MIGRATE = 'run `assay migrate`, or start the server, which does it'
const ELSEWHERE = 'if there should be customers, point DATABASE_URL at their database'

async function migrations(db: Database): Promise<CheckResult> {
  const state = await stateOfSchema(db)
  if (state === 'none') return warning('none yet, because the database is empty', `${MIGRATE}; ${ELSEWHERE}`)
  return state === 'older' ? warning('older than this version', MIGRATE) : ok('up to date')
}

async function installation(db: Database, { identity }: Server): Promise<CheckResult> {
  await assertNoGaps(db)
  const [made] = await db.query<{ on: string; customers: number; servedFrom: string | null }>(
    `select served_from as "servedFrom", to_char(created_at, 'YYYY-MM-DD') as on, (select count(*)::int from assay.customers) as customers
    from assay.installation`,
  )
  if (made) {
    const found = `created on ${made.on}, with ${made.customers} customers`
    return [null, identity].includes(made.servedFrom) ? ok(found) : warning(`${found}, ${MOVED}`, COPIES)
  }
  return warning('none yet; the next start creates one, which refuses all existing tokens', ELSEWHERE)
}

async function deletion(db: Database): Promise<CheckResult> {
  const [clock] = await findClock(db, {})
  if (!clock || clock.heldUntil === null) return ok("the database's clock has not jumped recently")
  const [by, until] = [Math.round(clock.jump! / 1000), clock.heldUntil.toISOString()]
  return warning(
    `nothing is deleted until ${until}, because the database's clock jumped by ${by} s`,
    "compare the database's clock with the true time and set it right, then run `assay clock confirm`",
  )
}

async function masterKeys(db: Database, { masterKeys = [] }: Config): Promise<CheckResult> {
  const known = await findMasterKeys(db, {})
  const other = masterKeys.filter(key =>
    known.some(({ id, checkValue: value }) => id === key.id && value !== checkValue(key)),
  )
  if (other.length > 0)
    return wrong(
      `${other.map(({ id }) => id).join(', ')}: this database was encrypted with a different key under this id`,
      'set MASTER_KEYS to the right key, from your backup',
    )
  const needed = await findNeededMasterKeys(db, {})
  const missing = needed.filter(({ id }) => !masterKeys.some(key => key.id === id)).map(({ id }) => id)
  return missing.length === 0
    ? ok(`${masterKeys.map(({ id }) => id).join(', ')}: everything encrypted can be decrypted`)
    : wrong(
        `rows are encrypted under ${missing.join(', ')}, which MASTER_KEYS lacks`,
        'add it after the first key',
      )
}
