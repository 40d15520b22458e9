import { readFileSync } from 'node:fs'
import type { Database } from '../db/client.ts'
import { DatabaseDamaged } from '../db/embedded.ts'
import { DatabaseError, translate } from '../db/failures.ts'
import { isMigrated } from '../db/migrate.ts'
import { openRedis } from '../db/redis.ts'
import { assemble } from './assemble.ts'
import { banner } from './banner.ts'
import { type Config, ConfigError, loadConfig, parseAdminToken, parseMasterKeys } from './config.ts'
import type { SealingKey } from './crypto/seal.ts'
import { listenTo, openDatabase, warnOfLosses } from './database.ts'
import {
  adminTokenFile,
  type DataDir,
  DataDirInUse,
  DataDirUnusable,
  MasterKeyMissing,
  masterKeysFile,
  openDataDir,
  type SecretFile,
} from './datadir.ts'
import { Unavailable } from './errors.ts'
import { ListenError, listen } from './listen.ts'
import { createLog, type Log } from './log.ts'
import { openVault, WrongMasterKey } from './vault.ts'

/** sysexits.h: the command is wrong; the settings are; the database can't be reached, or is damaged. */
const EX_USAGE = 64
const EX_CONFIG = 78
const EX_UNAVAILABLE = 69

const clock = { monotonic: () => performance.now(), wall: () => Date.now() }

/** What is under way has ended by then, or is ended (ms). */
const LONGEST_END = 7_000

const HELP = new Set(['help', '--help', '-h'])
const USAGE = `usage: npm start              serve (settings come from the environment; README.md lists them)
       npm run migrate        bring the database up to date, and end`

async function main([verb = 'serve', ...rest]: string[]) {
  if (rest.length > 0 || !['serve', 'migrate'].includes(verb))
    exit([verb, ...rest].some(word => HELP.has(word)) ? 0 : EX_USAGE, USAGE)
  const config = loadConfig(process.env, path => readFileSync(path, 'utf8'))
  const log = createLog(config.logLevel)
  const folder = config.databaseUrl === undefined ? openDataDir(config.dataDir) : undefined
  process.on('exit', () => folder?.release())
  const secrets = secretsOf(config, folder, log)
  const db = await openDatabase(config, folder?.database)
  if (verb === 'migrate') return db.close()
  await serve({ ...config, ...secrets }, db, log, folder?.path)
}

async function serve(config: Config & Secrets, db: Database, log: Log, folder: string | undefined) {
  await warnOfLosses(db, log)
  const vault = await openVault(db, config.masterKeys)
  let draining = false
  const state = { draining: () => draining, migrated: () => isMigrated(db) }
  const redis = config.redisUrl === undefined ? undefined : openRedis(config.redisUrl, log)
  const replica = assemble({ config, db, redis, vault, clock, log, process: state, processMetrics: true })
  await replica.bus.start()
  replica.maintenance.start()
  const hints = listenTo(config, replica.bus, log)
  const server = await listen(replica.app, config, state.draining)
  log.info({ port: server.port, host: config.host, database: db.kind, node: process.version }, 'listening')
  process.stderr.write(banner({ port: server.port, host: config.host, folder }))

  /** `pause`: how long requests are still taken (ms), until every balancer has seen that this one is not ready. */
  async function drain(pause: number) {
    if (draining) process.exit(1)
    draining = true
    log.info('draining')
    setTimeout(() => exit(1, 'assay: could not end in time'), pause + LONGEST_END).unref()
    await server.close(pause)
    await (await hints)?.close()
    await replica.stop()
    redis?.close()
    await db.close()
    log.info('ended')
    process.exit(0)
  }
  process.on('SIGTERM', () => void drain(3_000))
  process.on('SIGINT', () => void drain(0))
  process.on('uncaughtException', error => {
    log.fatal({ err: error }, 'a bug ends this process')
    process.exit(1)
  })
}

interface Secrets {
  masterKeys: [SealingKey, ...SealingKey[]]
  adminToken: string
}

/** From the settings or, embedded, from files that the first start makes. */
function secretsOf(config: Config, folder: DataDir | undefined, log: Log): Secrets {
  const masterKeys = config.masterKeys ?? fromFile(masterKeysFile(folder!), parseMasterKeys, RESTORE, log)
  const adminToken = config.adminToken ?? fromFile(adminTokenFile(folder!), parseAdminToken, DELETE, log)
  return { masterKeys: masterKeys as Secrets['masterKeys'], adminToken }
}

const RESTORE =
  'Restore it from your copy, or set MASTER_KEYS to that key: a new key can not open this database'
const DELETE = 'Delete it: the next start makes a new one'

function fromFile<Parsed>(
  file: SecretFile,
  parse: (text: string, source: string) => Parsed,
  cure: string,
  log: Log,
): Parsed {
  for (const warning of file.warnings) log.warn(warning)
  try {
    return parse(file.text, file.path)
  } catch {
    throw new ConfigError([`${file.path}: is damaged. ${cure}`])
  }
}

function exit(code: number, message: string): never {
  process.stderr.write(`${message}\n`)
  process.exit(code)
}

/** What kept it from starting, and the exit code that says whose it is to mend. */
function explain(error: unknown): never {
  const settings = [ConfigError, DataDirInUse, DataDirUnusable, MasterKeyMissing, WrongMasterKey, ListenError]
  if (settings.some(kind => error instanceof kind)) exit(EX_CONFIG, `assay: ${(error as Error).message}`)
  if (error instanceof DatabaseDamaged) exit(EX_UNAVAILABLE, `assay: ${error.message}`)
  const translated = translate(error)
  if (translated instanceof DatabaseError && translated.sqlstate === '42501') exit(EX_CONFIG, NO_RIGHTS)
  if (!(translated instanceof Unavailable)) throw translated
  exit(EX_UNAVAILABLE, `assay: ${unreachable(translated.detail ?? '')}; check DATABASE_URL`)
}

const NO_RIGHTS = `assay: this database user may not make or use the schema assay; as the database's owner:
  grant create on database NAME to USER;    and, if the schema is there, make USER its owner`

/** In words, by the driver's or the server's code. */
function unreachable(detail: string): string {
  const why = Object.entries(WHY).find(([code]) => detail.includes(code))?.[1]
  return `the database can't be used${why === undefined ? '' : `: ${why}`} (${detail})`
}

const WHY = {
  '3D000': 'this database does not exist; create it (createdb NAME)',
  '28': 'the user or the password is wrong, or the server lets this user in from elsewhere only',
  ENOTFOUND: 'there is no such host',
  ECONNREFUSED: 'nothing listens at this host and port',
  ECONNRESET: 'the server hung up; is it Postgres, and does it speak TLS if that was asked for?',
  STANDBY: 'it is a standby, which only reads; name the primary, or promote it',
  CONNECT_TIMEOUT: 'nothing answers at this host and port',
}

main(process.argv.slice(2)).catch(explain)
