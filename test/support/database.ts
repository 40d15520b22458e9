import { cpSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { dirname, join } from 'node:path'
import postgres from 'postgres'
import { CALL_DEADLINE_MS, type Database, open } from '../../db/client.ts'
import { migratePostgres } from '../../db/migrate.ts'
import { openPostgres } from '../../db/postgres.ts'

/**
 * Databases with the roles of production: one migrates, another serves, neither is a superuser, and both have a password.
 * The server's pg_hba.conf decides whether the password is required; the server in CI requires it.
 */

export interface TestDatabase {
  /** The database as Assay opens it, with the role that serves. */
  db: Database
  /** A superuser's connections, for changes that bypass Assay. The same as `db` when embedded. */
  admin: Pick<Database, 'query'>
  /** Undefined if embedded. */
  url: string | undefined
  drop(): Promise<void>
}

/** The migrated databases that the suite prepares once per run. */
export interface Templates {
  /** A DATA_DIR that no server has used yet: an embedded database, a master key and an operator token. */
  embeddedTemplate: string
  /** The URL of a database on the server of `databaseUrl`, without connections. */
  postgresTemplate: string
}

/** Copies a template: an embedded database to its own folder, or a new database on the server at `serverUrl`. */
export async function makeDatabase(serverUrl: string, templates: Templates): Promise<TestDatabase> {
  if (serverUrl === '') return copyEmbedded(templates.embeddedTemplate)
  const { url, drop } = await createDatabase(serverUrl, templates.postgresTemplate)
  const db = await open({ url })
  const admin = openPostgres(asAdmin(url), CALL_DEADLINE_MS, false)
  return {
    db,
    admin,
    url,
    drop: async () => {
      await Promise.all([db.close(), admin.close()])
      await drop()
    },
  }
}

async function copyEmbedded(template: string): Promise<TestDatabase> {
  const folder = mkdtempSync(join(dirname(template), 'copy-'))
  cpSync(join(template, 'pgdata'), folder, { recursive: true })
  const db = await open({ folder })
  return {
    db,
    admin: db,
    url: undefined,
    drop: async () => {
      await db.close()
      rmSync(folder, { recursive: true })
    },
  }
}

export interface CreatedDatabase {
  /** The URL with the serving role. */
  url: string
  /** The URL with the migrating role, bypassing the pooler if there is one. */
  migrateUrl: string
  drop(): Promise<void>
}

/**
 * A migrated database with a name unique among the workers, or a copy of one without connections. `serverUrl` is a
 * superuser's.
 */
export async function createDatabase(serverUrl: string, copyOf?: string): Promise<CreatedDatabase> {
  if (copyOf !== undefined) return create(serverUrl, ` template ${nameOf(copyOf)}`)
  const created = await createEmptyDatabase(serverUrl)
  await migratePostgres(created.migrateUrl)
  return created
}

/** Creates a database as deploy/postgres/roles.sql does, without migrations. */
export async function createEmptyDatabase(serverUrl: string): Promise<CreatedDatabase> {
  const created = await create(serverUrl)
  await runRolesSql(created.migrateUrl)
  return created
}

/** deploy/postgres/roles.sql with the tests' role names. */
export async function runRolesSql(url: string) {
  const sql = control(url)
  try {
    await sql.unsafe(ROLES_SQL)
  } finally {
    await sql.end()
  }
}

/** Creates a database as the server's administrator: `create database NAME ...options`. */
async function create(serverUrl: string, options = ''): Promise<CreatedDatabase> {
  const name = `assay_test_${process.pid}_${Math.random().toString(36).slice(2, 10)}`
  administrators.set(hostOf(serverUrl)!, serverUrl)
  const server = administratorOf(serverUrl)
  await server.unsafe(`create database ${name}${options}`)
  const pooler = hostOf(serverUrl) === hostOf(process.env.TEST_DATABASE_URL) && process.env.TEST_POOLER
  // Settings that users of a pooler must set themselves, because Assay can't set them through it.
  if (pooler) await server.unsafe(`alter database ${name} set statement_timeout = '4500ms'`)
  const at = (role: string) =>
    changed(serverUrl, { pathname: `/${name}`, username: role, password: encodeURIComponent(PASSWORD) })
  return {
    url: pooler ? changed(at(SERVES), { host: pooler }) : at(SERVES),
    migrateUrl: at(MIGRATES),
    drop: async () => {
      await server.unsafe(`drop database ${name} with (force)`)
    },
  }
}

export const MIGRATES = 'assay_test_migrate'
export const SERVES = 'assay_test_serve'
/** Each special character of this password must be encoded in a URL. */
export const PASSWORD = 's3cret/p@ss:w%rd?#1'

/** Several workers may run this at once; they share the roles. Only superusers run it, so they need no membership in them. */
const ROLES_SQL = readFileSync(join(import.meta.dirname, '../../deploy/postgres/roles.sql'), 'utf8')
  .replaceAll('assay_migrate', MIGRATES)
  .replaceAll('assay_serve', SERVES)
  .replace(/^(grant|revoke) \w+ (to|from) current_user;$/gm, '')
  .replace(/^create role (\w+) login;$/gm, (_, role) => makeRole(role))

function makeRole(role: string): string {
  return `do $$ begin create role ${role} login password '${PASSWORD}';
    exception when duplicate_object or unique_violation then null; end $$;`
}

/** The superuser's URL of each server that has test databases, by host. */
const administrators = new Map<string, string>()

/** The same database as its server's superuser, bypassing the pooler if there is one. */
export function asAdmin(url: string): string {
  const straight = direct(url)
  const { username, password } = new URL(administrators.get(hostOf(straight)!)!)
  return changed(straight, { username, password })
}

/** A superuser's connection for one test, bypassing the pooler if there is one. The test must close it. */
export const control = (url: string) => postgres(asAdmin(url), { max: 1, onnotice: () => {} })

/** The URL that bypasses the pooler of `npm run test:pooler`, if there is one. */
export const direct = (url: string) =>
  hostOf(url) === process.env.TEST_POOLER
    ? changed(url, { host: hostOf(process.env.TEST_DATABASE_URL)! })
    : url

const hostOf = (url: string | undefined) => (url ? new URL(url).host : undefined)
const nameOf = (url: string) => new URL(url).pathname.slice(1)

/** Replaces parts of the URL; the new parts are already encoded. */
export const changed = (
  url: string,
  parts: Partial<Record<'host' | 'pathname' | 'username' | 'password', string>>,
) => Object.assign(new URL(url), parts).href

/** A superuser's connection to a server, shared by everything that creates and drops databases on it. Ends when it is idle. */
function administratorOf(serverUrl: string) {
  const sql =
    connections.get(serverUrl) ?? postgres(serverUrl, { max: 1, idle_timeout: 5, onnotice: () => {} })
  connections.set(serverUrl, sql)
  return sql
}
const connections = new Map<string, postgres.Sql>()
