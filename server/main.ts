// First: it handles signals while the other modules are loaded.
import './shutdown.ts'
import cluster from 'node:cluster'
import { randomUUID } from 'node:crypto'
import { existsSync, readFileSync } from 'node:fs'
import { flushCompileCache } from 'node:module'
import { availableParallelism, uptime } from 'node:os'
import { banner } from './banner.ts'
import {
  type Config,
  ConfigError,
  describeMisspelt,
  forgetSecrets,
  loadConfig,
  loadDatabaseConfig,
  MAX_WORKERS,
  parseAdminToken,
  parseMasterKeys,
} from './config/load.ts'
import { UrlFiles } from './config/url-files.ts'
import {
  adminTokenFile,
  type DataDir,
  masterKeysFile,
  openDataDir,
  type SecretFile,
} from './embedded/data-dir.ts'
import { exitNow } from './exit.ts'
import { describeFailure } from './exit-codes.ts'
import { loadKeyRing } from './keys/master-keys.ts'
import type { Clock } from './lib/clock.ts'
import { createLog, type Log } from './lib/logger.ts'
import { standardOutput, writeMessage } from './lib/standard-output.ts'
import {
  describeNewInstallation,
  openDatabase,
  warnIfNewerSchema,
  warnIfNotDurable,
} from './open-database.ts'
import type { ServeOptions, StartupSecrets } from './serve.ts'
import { cleanUpAtSignal, codeOfSignal, exitOnUncaught, handleSignals, type Signal } from './shutdown.ts'

/** sysexits.h: the command is wrong. */
const EX_USAGE = 64

const BOOT_ID = '/proc/sys/kernel/random/boot_id'
const MINUTE_MS = 60_000

const clock: Clock = { monotonic: () => performance.now(), wall: () => Date.now(), boot: readBootClock() }

/** If the system has no boot id, only this process can use the clock. */
function readBootClock(): Clock['boot'] {
  const boot = existsSync(BOOT_ID) ? readFileSync(BOOT_ID, 'utf8').trim() : randomUUID()
  return () => {
    const reading = Number(process.hrtime.bigint()) / 1e6
    // This clock stops while the machine sleeps, and the uptime does not. After a sleep it counts as another clock.
    const slept = Math.round((uptime() * 1000 - reading) / MINUTE_MS)
    return { id: `${boot}.${slept}`, reading }
  }
}

const HELP = new Set(['help', '--help', '-h'])
const USAGE = `usage: npm start              serve (settings come from the environment; docs/settings.md lists them)
       npm run migrate        bring the database up to date and exit`

async function main([verb = 'serve', ...rest]: string[]) {
  if (rest.length > 0 || !['serve', 'migrate'].includes(verb))
    exit([verb, ...rest].some(word => HELP.has(word)) ? 0 : EX_USAGE, USAGE)
  if (cluster.isWorker) return (await import('./workers/worker.ts')).work(clock)
  if (verb === 'migrate') return migrate()
  const config = loadConfig(process.env, path => readFileSync(path, 'utf8'))
  forgetSecrets(process.env)
  const log = createLog(config.logLevel, standardOutput(clock))
  warnIfMisspelt(log)
  const folder = openFolder(config)
  const secrets = resolveSecrets(config, folder, log)
  const files = new UrlFiles({ config, clock, log })
  const db = await openDatabase(config, folder?.database, files)
  await warnIfNotDurable(db, log)
  await warnIfNewerSchema(db, log)
  const made = await describeNewInstallation(db, config)
  const workers = config.workers === 'auto' ? Math.min(availableParallelism(), MAX_WORKERS) : config.workers
  const parts = { config: { ...config, ...secrets }, db, files, log }
  const port = workers === 1 ? await serveAlone(parts) : await serveTogether(parts, workers)
  const { host, signup } = config
  log.info(
    { port, host, database: db.kind, node: process.version, ...(workers > 1 && { workers }) },
    'listening',
  )
  if (signup === 'open') log.info(OPEN_SIGNUP)
  if (made !== undefined) log.warn({ place: made }, NEW_INSTALLATION)
  if (folder !== undefined && process.stderr.isTTY) writeMessage(describeStart(config, folder, port))
  // Node writes the compile cache only at a clean exit, so write it now. Without NODE_COMPILE_CACHE this does
  // nothing.
  flushCompileCache()
}

function describeStart({ host, adminToken }: Config, folder: DataDir, port: number): string {
  const tokenFile = adminToken === undefined ? adminTokenFile(folder).path : undefined
  const byNpm = process.env.npm_lifecycle_event !== undefined
  return banner({ host, port, folder: folder.path, tokenFile, byNpm })
}

/** The folder of the embedded database, until this process ends. Undefined if there is a database elsewhere. */
function openFolder({ databaseUrl, dataDir }: Pick<Config, 'databaseUrl' | 'dataDir'>): DataDir | undefined {
  if (databaseUrl !== undefined) return undefined
  // PGlite creates every file with mode 0666, as long as it runs.
  process.umask(0o077)
  const folder = openDataDir(dataDir)
  process.on('exit', () => folder.release())
  return folder
}

/** Brings the database up to date and ends. It needs no secret but the database's URL. */
async function migrate() {
  const config = loadDatabaseConfig(process.env, path => readFileSync(path, 'utf8'))
  warnIfMisspelt(createLog('warn', standardOutput(clock)))
  const folder = openFolder(config)
  const db = await openDatabase(config, folder?.database)
  await db.close()
}

function warnIfMisspelt(log: Log) {
  const misspelt = describeMisspelt(process.env)
  if (misspelt.length > 0) log.warn(misspelt.join(' '))
}

const OPEN_SIGNUP =
  'anyone who can reach this server can create an account, because SIGNUP is open; set SIGNUP=closed if only operators create customers'

const NEW_INSTALLATION =
  'the database was empty, so a new installation was created: existing tokens will be rejected. If there should be customers, ' +
  'stop the server and check DATABASE_URL or DATA_DIR'

type Parts = Omit<ServeOptions, 'clock'>

/** Loads the server's modules here, because a refused start, a migration and the primary of several workers don't need them. */
async function serveAlone(parts: Parts): Promise<number> {
  const { serve } = await import('./serve.ts')
  const { port, drain } = await serve({ ...parts, clock, joining: cleanUpAtSignal })
  handleSignals(drain, () => exitNow(1))
  exitOnUncaught(parts.log)
  return port
}

/**
 * Starts the workers. Key and database problems are reported here once, before every worker runs into them.
 */
async function serveTogether({ config, db, log }: Parts, workers: number): Promise<number> {
  await loadKeyRing(db, config.masterKeys)
  await db.close()
  const { Primary } = await import('./workers/primary.ts')
  const primary = new Primary({ config, workers, clock, log })
  const end = (code: number) => primary.end().then(() => exitNow(code))
  const leave = (pause: number, signal: Signal) =>
    primary.isListening ? primary.drain(pause).then(exitNow) : end(codeOfSignal(signal))
  handleSignals(leave, () => end(1))
  exitOnUncaught(log)
  return primary.start()
}

/** Reads the secrets from the settings or, with the embedded database, from files that the first start makes. */
function resolveSecrets(
  config: Config,
  folder: DataDir | undefined,
  log: Log,
): StartupSecrets & Partial<Config> {
  const masterKeys = config.masterKeys ?? fromFile(masterKeysFile(folder!), parseMasterKeys, RESTORE, log)
  const found = { masterKeys: masterKeys as StartupSecrets['masterKeys'] }
  if (config.adminToken !== undefined) return { ...found, adminToken: config.adminToken }
  const file = adminTokenFile(folder!)
  const adminToken = fromFile(file, parseAdminToken, DELETE, log)
  return {
    ...found,
    adminToken,
    credentialTexts: { ...config.credentialTexts, ADMIN_TOKEN: file.text },
    secretFiles: { ...config.secretFiles, ADMIN_TOKEN: file.path },
  }
}

const RESTORE =
  "Restore it from your copy, or set MASTER_KEYS to that key: a new key can't decrypt this database"
const DELETE = 'Delete it: the next start generates a new one'

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
  writeMessage(`${message}\n`)
  exitNow(code)
}

// Awaited: if nothing is left to wait for before this has ended, Node's exit code is 13, and not 0.
await main(process.argv.slice(2)).catch(error => {
  const { code, message } = describeFailure(error)
  exit(code, message)
})
