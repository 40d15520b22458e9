import { type Database, open } from '../db/client.ts'
import { type Hints, listenForHints } from '../db/hints.ts'
import { inspect, type Server } from '../db/inspect.ts'
import { isNewer } from '../db/journal.ts'
import { findInstallation } from '../db/keys.ts'
import { migratePostgres } from '../db/migrate.ts'
import { assertNoGaps } from '../db/wholeness.ts'
import { type Config, ConfigError } from './config.ts'
import { Unavailable } from './errors.ts'
import type { Log } from './log.ts'
import { VERSION } from './version.ts'

type Urls = Pick<Config, 'databaseUrl' | 'directDatabaseUrl'>

/**
 * Open, migrated and whole; embedded in `folder` when no URL is set. Throws ConfigError when a URL leads to the wrong place,
 * and SchemaUnfit.
 */
export async function openDatabase(urls: Urls, folder: string | undefined): Promise<Database> {
  const { databaseUrl, directDatabaseUrl } = urls
  if (databaseUrl !== undefined) {
    await checkServers(databaseUrl, directDatabaseUrl)
    await migratePostgres(directDatabaseUrl ?? databaseUrl)
  }
  const db = await open(databaseUrl === undefined ? { folder: folder! } : { url: databaseUrl })
  await assertNoGaps(db)
  return db
}

/**
 * Where a new installation will be made, in the operator's words; undefined where there is one. Of all tokens that there are
 * it knows none.
 */
export async function placeOfNew(
  db: Database,
  { databaseUrl, dataDir }: Pick<Config, 'databaseUrl' | 'dataDir'>,
): Promise<string | undefined> {
  if ((await findInstallation(db, {})).length > 0) return undefined
  return databaseUrl === undefined
    ? `the folder ${dataDir}`
    : `the database ${(await inspect(databaseUrl)).name}`
}

async function checkServers(url: string, direct: string | undefined) {
  const server = await inspect(url)
  const problems = server.unfit.map(unfit)
  if (direct !== undefined) problems.push(...whatIsWrong(server, await inspect(direct)))
  if (problems.length > 0) throw new ConfigError(problems)
  if (server.standby) throw new Unavailable('database: STANDBY', 'database')
}

function whatIsWrong(server: Server, direct: Server): string[] {
  if (direct.identity !== server.identity)
    return [
      'DIRECT_DATABASE_URL: leads to another database than DATABASE_URL; name the same one, past the pooler',
    ]
  if (direct.standby && !server.standby)
    return ['DIRECT_DATABASE_URL: leads to a standby, which only reads; name the primary']
  return []
}

const unfit = ({ name, value, needed }: Server['unfit'][number]) =>
  `DATABASE_URL: through this pooler ${name} is '${value}', and Assay can't set it there; as the database's owner: ` +
  `alter database NAME set ${name} = '${needed}'; and let the pooler reconnect`

/** Hints save half a second; a poll finds the same without them. Nothing waits for them. */
export async function listenTo(urls: Urls, bus: { poke(): void }, log: Log): Promise<Hints | undefined> {
  const url = urls.directDatabaseUrl ?? urls.databaseUrl
  if (url === undefined) return undefined
  const hints = await listenForHints(url, () => bus.poke())
  if (!hints.heard)
    log.warn(
      'notifications do not arrive, so other replicas hear of a revocation up to half a second later; ' +
        'through a pooler they are lost: let DIRECT_DATABASE_URL lead past it',
    )
  return hints
}

/** Whoever runs Postgres so that a crash forgets is told. */
export async function warnOfLosses(db: Database, log: Log) {
  if (db.kind === 'embedded') return
  for (const setting of ['fsync', 'full_page_writes']) {
    const [row] = await db.query<{ value: string }>(`select current_setting('${setting}') as value`)
    if (row?.value === 'off')
      log.warn(
        `${setting} is off in this Postgres: a crash LOSES REVOCATIONS that were acknowledged. Turn it on`,
      )
  }
}

/** Whoever put an older version beside a newer one, or went back to it, is told what that is meant for. */
export async function warnOfNewer(db: Database, log: Log) {
  if (await isNewer(db))
    log.warn(
      `a newer version brought this database up to date: ${VERSION} runs on it as it is, which is meant for the ` +
        'version before that one, during an upgrade or after going back; an older one may fail',
    )
}
