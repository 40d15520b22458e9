import { type Database, open } from '../db/client.ts'
import { SchemaUnfit } from '../db/failures.ts'
import { inspect } from '../db/inspect.ts'
import { findMasterKeys, findNeededMasterKeys } from '../db/keys.ts'
import { assertNoGaps, stateOfSchema } from '../db/wholeness.ts'
import type { Config } from '../server/config.ts'
import { checkValue } from '../server/crypto/seal.ts'
import { failureOf } from '../server/failures.ts'
import { type Add, type Found, ok, warning, wrong } from './finding.ts'

const OLDEST = 150_000
/** Of one process: ten for calls, one for the poll, one that hears notifications. */
const CONNECTIONS = 12

/** What can be seen of the database without a server: the way there, and what is in it. */
export async function database(config: Config, url: string, add: Add) {
  const db = await reached(url, config, add)
  if (!db) return
  try {
    add('database settings', await databaseSettings(db))
    add('database version', await version(db))
    add('database clock', await clock(db))
    add('connections', await connections(db, config))
    add('privileges', await privileges(db))
    const migrated = await fitting(migrations(db))
    add('migrations', migrated)
    if (migrated.state !== 'ok') return
    add('installation', await fitting(installation(db)))
    add('master keys', await masterKeys(db, config))
  } finally {
    await db.close()
  }
}

async function reached(url: string, { directDatabaseUrl: direct }: Config, add: Add) {
  try {
    const found = await inspect(url)
    const straight = direct === undefined ? undefined : await inspect(direct)
    if (found.standby)
      add('database', wrong('it is a standby, which only reads', 'let DATABASE_URL name the primary'))
    else if (straight && straight.identity !== found.identity)
      add(
        'database',
        wrong(
          'DIRECT_DATABASE_URL leads to another database than DATABASE_URL',
          'name the same database in both, the direct one past the pooler',
        ),
      )
    else add('database', ok(`${found.name}, reached${found.pooled ? ' through a pooler' : ''}`))
    for (const { name, value, needed } of found.unfit)
      add(
        'pooler',
        wrong(
          `${name} is '${value}' there, not '${needed}'`,
          `alter database NAME set ${name} = '${needed}'`,
        ),
      )
    return await open({ url })
  } catch (error) {
    add(
      'database',
      wrong(failureOf(error).message.replace(/^assay: /, ''), 'mend DATABASE_URL, or start the database'),
    )
    return undefined
  }
}

const settingOf = async (db: Database, name: string) =>
  (await db.query<{ value: string }>(`select current_setting('${name}') as value`))[0]!.value

async function databaseSettings(db: Database): Promise<Found> {
  const off: string[] = []
  for (const name of ['fsync', 'full_page_writes']) if ((await settingOf(db, name)) === 'off') off.push(name)
  return off.length === 0
    ? ok('a crash loses nothing')
    : wrong(
        `${off.join(' and ')} off: a crash loses revocations that were acknowledged`,
        'turn it on in postgresql.conf',
      )
}

async function version(db: Database): Promise<Found> {
  const number = Number(await settingOf(db, 'server_version_num'))
  const shown = await settingOf(db, 'server_version')
  return number >= OLDEST ? ok(`Postgres ${shown}`) : wrong(`Postgres ${shown}`, 'use Postgres 15 or newer')
}

/** Tokens live by the database's clock; logs and callers by this machine's. */
async function clock(db: Database): Promise<Found> {
  const sent = Date.now()
  const [row] = await db.query<{ at: number }>(
    'select (extract(epoch from clock_timestamp()) * 1000)::float8 as at',
  )
  const off = Math.round(Math.abs(row!.at - (sent + Date.now()) / 2))
  return off < 2_000
    ? ok(`within ${Math.max(off, 1)} ms of this machine's`)
    : warning(
        `${Math.round(off / 1000)} s from this machine's`,
        'let both be set by NTP: tokens expire by the database',
      )
}

async function connections(db: Database, { workers }: Config): Promise<Found> {
  const [row] = await db.query<{ most: number; used: number }>(
    `select current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int as most,
      (select count(*)::int from pg_stat_activity where backend_type = 'client backend') as used`,
  )
  const needed = CONNECTIONS * (workers === 'auto' ? 1 : workers)
  const found = `${row!.most} in all, ${row!.used} used; this needs ${needed} for each replica`
  return row!.most - row!.used >= needed
    ? ok(found)
    : warning(found, 'raise max_connections, start fewer WORKERS, or put pgbouncer in between')
}

async function privileges(db: Database): Promise<Found> {
  const [row] = await db.query<{ make: boolean; there: boolean; owned: boolean }>(
    `select has_database_privilege(current_database(), 'create') as make,
      exists (select from pg_namespace where nspname = 'assay') as there,
      exists (select from pg_namespace where nspname = 'assay' and pg_has_role(nspowner, 'usage')) as owned`,
  )
  if (row!.there ? row!.owned : row!.make) return ok('it may make and change the schema assay')
  return wrong(
    'this user may not make or change the schema assay',
    row!.there
      ? "as the database's owner: alter schema assay owner to USER"
      : "as the database's owner: grant create on database NAME to USER",
  )
}

const WHOLE = 'restore the whole backup (docs/running.md), or let DATABASE_URL lead to another database'
const MIGRATE = 'assay migrate, or start the server, which does it'
const ELSEWHERE = 'if there should be customers, let DATABASE_URL lead to them'

async function migrations(db: Database): Promise<Found> {
  const state = await stateOfSchema(db)
  if (state === 'none') return warning('none yet: the database is empty', `${MIGRATE}; ${ELSEWHERE}`)
  return state === 'older' ? warning('older than this version', MIGRATE) : ok('up to date')
}

async function installation(db: Database): Promise<Found> {
  await assertNoGaps(db)
  const [made] = await db.query<{ on: string; customers: number }>(
    `select to_char(created_at, 'YYYY-MM-DD') as on, (select count(*)::int from assay.customers) as customers
    from assay.installation`,
  )
  if (made) return ok(`made on ${made.on}, with ${made.customers} customers`)
  return warning('none yet: the next start makes one, which refuses every token there is', ELSEWHERE)
}

/** The finding of a check that may find that the schema isn't as Assay leaves it. */
async function fitting(check: Promise<Found>): Promise<Found> {
  try {
    return await check
  } catch (error) {
    if (!(error instanceof SchemaUnfit)) throw error
    return wrong(`the schema assay ${error.found}`, WHOLE)
  }
}

async function masterKeys(db: Database, { masterKeys = [] }: Config): Promise<Found> {
  const known = await findMasterKeys(db, {})
  const other = masterKeys.filter(key =>
    known.some(({ id, checkValue: value }) => id === key.id && value !== checkValue(key)),
  )
  if (other.length > 0)
    return wrong(
      `${other.map(({ id }) => id).join(', ')}: another key under the same id than this database was sealed with`,
      'set MASTER_KEYS to that key, from your backup',
    )
  const needed = await findNeededMasterKeys(db)
  const missing = needed.filter(({ id }) => !masterKeys.some(key => key.id === id)).map(({ id }) => id)
  return missing.length === 0
    ? ok(`${masterKeys.map(({ id }) => id).join(', ')}: all that is sealed can be opened`)
    : wrong(`rows are sealed under ${missing.join(', ')}, which MASTER_KEYS lacks`, 'add it behind the first')
}
