import { type Database, open } from '../db/client.ts'
import { type Listener, listenForChanges } from '../db/listen.ts'
import { migratePostgres } from '../db/migrate.ts'
import { isNewer } from '../db/migration-files.ts'
import { findMissingPrivileges } from '../db/privileges.ts'
import { makePartitions } from '../db/queries/audit-partitions.ts'
import { findInstallation } from '../db/queries/customer-keys.ts'
import { storeServedDatabase } from '../db/queries/served-database.ts'
import { assertNoGaps, stateOfSchema } from '../db/schema-check.ts'
import { inspect, type Server } from '../db/server-info.ts'
import { MAINTENANCE } from './audit/audit.ts'
import { type Config, ConfigError } from './config/load.ts'
import type { UrlFiles } from './config/url-files.ts'
import { closeToOthers } from './embedded/data-dir.ts'
import { Unavailable } from './lib/errors.ts'
import type { Log } from './lib/logger.ts'
import { VERSION } from './lib/version.ts'

type Urls = Pick<Config, 'databaseUrl' | 'directDatabaseUrl'>

/**
 * Opens the database, migrated and complete; embedded in `folder` when no URL is set. Throws ConfigError when a URL leads to the
 * wrong place or its role lacks a right, NotMigrated, and SchemaError. `files` is read again when a login is refused later.
 */
export async function openDatabase(
  urls: Urls,
  folder: string | undefined,
  files?: UrlFiles,
): Promise<Database> {
  const { databaseUrl, directDatabaseUrl } = urls
  let db: Database
  if (databaseUrl !== undefined) {
    const server = await checkServers(databaseUrl, directDatabaseUrl)
    db = await open({ url: databaseUrl, server, reread: files?.reader('DATABASE_URL', databaseUrl) })
    await bringUpToDate(db, directDatabaseUrl ?? databaseUrl)
    await checkPrivileges(db)
  } else {
    db = await open({ folder: folder! })
    closeToOthers(folder!)
  }
  await assertNoGaps(db)
  return db
}

/** Runs no DDL if no migration is due, so that the serving role needs no right to it. */
async function bringUpToDate(db: Database, url: string) {
  const state = await stateOfSchema(db)
  if (state === 'current') {
    await makePartitions(db)
    return
  }
  try {
    await migratePostgres(url)
  } catch (error) {
    throw isForbidden(error) ? new NotMigratedError(state) : error
  }
}

const isForbidden = (error: unknown) => (error as { sqlstate?: unknown }).sqlstate === '42501'

/** Migrations are due, and this role may not apply them. */
export class NotMigratedError extends Error {
  readonly state: 'none' | 'older'

  constructor(state: NotMigratedError['state']) {
    const found = state === 'none' ? 'is not set up for Assay yet' : 'has an older schema assay'
    super(
      `this database ${found}, and this role can't change that. Run \`npm run migrate\` (in the image: \`migrate\`) with ` +
        'the URL of a role that can, then start again. deploy/postgres/roles.sql makes the two roles; a single role for ' +
        'both needs: grant create on database NAME to ROLE',
    )
    this.state = state
  }
}

async function checkPrivileges(db: Database) {
  const missing = await findMissingPrivileges(db)
  if (missing.length > 0)
    throw new ConfigError([
      `DATABASE_URL: its role lacks rights in the schema assay: ${missing.join('; ')}; grant them as ` +
        'deploy/postgres/roles.sql does',
    ])
}

/**
 * Describes where a new installation will be created, as the operator would name it. Undefined if there is
 * one already. A new installation rejects all existing tokens.
 */
export async function describeNewInstallation(
  db: Database,
  { databaseUrl, dataDir }: Pick<Config, 'databaseUrl' | 'dataDir'>,
): Promise<string | undefined> {
  if ((await findInstallation(db, {})).length > 0) return undefined
  return databaseUrl === undefined
    ? `the folder ${dataDir}`
    : `the database ${(await inspect(databaseUrl)).name}`
}

async function checkServers(url: string, direct: string | undefined): Promise<Server> {
  const server = await inspect(url)
  const problems = server.unfit.map(unfit)
  if (server.encoding !== 'UTF8') problems.push(`DATABASE_URL: ${notUtf8(server)}`)
  if (direct !== undefined) problems.push(...checkDirectUrl(server, await inspect(direct)))
  if (problems.length > 0) throw new ConfigError(problems)
  if (server.standby) throw new Unavailable('database: STANDBY', 'database')
  if (server.readOnly) throw new Unavailable('database: READ_ONLY', 'database')
  return server
}

/** The error message for a database whose encoding isn't UTF8, and how to fix it. */
const notUtf8 = ({ encoding }: Pick<Server, 'encoding'>) =>
  `the database's encoding is ${encoding}, and Assay needs UTF8; create another one: create database NAME ` +
  "encoding 'UTF8' template template0"

/** The reasons why a direct URL can't serve with the other one. */
export function checkDirectUrl(server: Server, direct: Server): string[] {
  if (direct.identity !== server.identity)
    return [
      'DIRECT_DATABASE_URL: points to another database than DATABASE_URL; use the same database without the pooler',
    ]
  if (direct.readOnly && !direct.standby && !server.readOnly)
    return ['DIRECT_DATABASE_URL: its sessions are read-only; turn off default_transaction_read_only']
  if (direct.standby && !server.standby)
    return ['DIRECT_DATABASE_URL: points to a standby, which is read-only; use the primary']
  return []
}

const unfit = ({ name, value, needed }: Server['unfit'][number]) =>
  `DATABASE_URL: through this pooler ${name} is '${value}', and Assay can't set it there; run as the database's owner: ` +
  `alter database NAME set ${name} = '${needed}'; then make the pooler reconnect`

/** Notifications save half a second; without them a poll finds the same changes. Nothing waits for them. */
export async function startListener(
  urls: Urls,
  changeFeed: { wake(): void },
  { files, log }: { files: UrlFiles; log: Log },
): Promise<Listener | undefined> {
  const { databaseUrl, directDatabaseUrl } = urls
  const url = directDatabaseUrl ?? databaseUrl
  if (url === undefined) return undefined
  const reread = files.reader(directDatabaseUrl === undefined ? 'DATABASE_URL' : 'DIRECT_DATABASE_URL', url)
  const hints = await listenForChanges(url, () => changeFeed.wake(), reread)
  if (!hints.heard)
    log.warn(
      'notifications do not arrive, so other replicas learn of a revocation up to half a second later; ' +
        'a pooler loses them: set DIRECT_DATABASE_URL to a URL without the pooler',
    )
  return hints
}

/** Logs a warning if the Postgres settings let a crash lose committed data. */
export async function warnIfNotDurable(db: Database, log: Log) {
  if (db.kind === 'embedded') return
  for (const setting of await findUnsafeSettings(db))
    log.warn(
      `${setting} is off in this Postgres: a crash LOSES REVOCATIONS that were acknowledged. Turn it on, ` +
        'unless the platform stores the data itself and turns it off (Neon, Aurora)',
    )
}

/** The settings of Postgres that are off, so that a crash can lose committed data. */
export async function findUnsafeSettings(db: Database): Promise<string[]> {
  const rows = await db.query<{ name: string }>(
    `select name from unnest(array['fsync', 'full_page_writes']) as name where current_setting(name) = 'off'`,
  )
  return rows.map(({ name }) => name)
}

/**
 * Logs a warning if the installation was last served from another database. The server starts, because it can't find out whether
 * the installation was moved, restored or copied. A copy of the server's files is not detected, because it looks like the
 * original.
 */
export async function warnIfMoved(db: Database, log: Log) {
  const [moved] = await storeServedDatabase(db, MAINTENANCE)
  if (moved === undefined) return
  const { former, present } = moved
  log.warn(
    { former, present },
    'this installation was served from another database before: it was moved, restored or copied. If a server still ' +
      'uses the former one, each accepts the tokens of the other; see docs/operating.md, Copies',
  )
}

/** Logs a warning if a newer version has migrated the database, and says when that is supported. */
export async function warnIfNewerSchema(db: Database, log: Log) {
  if (await isNewer(db))
    log.warn(
      `a newer version has migrated this database. ${VERSION} can use it if it is the version just before that one, ` +
        'during an upgrade or after a rollback; an older version may fail',
    )
}
