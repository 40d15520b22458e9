import { randomBytes } from 'node:crypto'
import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { secretText } from '../config/secret-text.ts'
import { SetupError } from '../lib/errors.ts'
import { acquireLock, createFile, LockHeldError } from './pid-lock.ts'

/** The folder of the embedded database, which this process has locked. It also has the secrets that were made for it. */
export interface DataDir {
  /** The path as the operator wrote it. */
  path: string
  /** The absolute path of the database, which may not exist yet. */
  database: string
  /** Whether there is no database yet. */
  fresh: boolean
  /** Releases the lock. It is safe to call this twice. */
  release(): void
}

export class DataDirInUseError extends SetupError {
  constructor(path: string, pid: number) {
    super(`another process (pid ${pid}) has ${path} open; stop it, or set DATA_DIR or DATABASE_URL`)
    this.name = 'DataDirInUse'
  }
}

/** The database exists but the master key that encrypts its secrets is missing. */
export class MasterKeyMissingError extends SetupError {
  constructor(file: string, path: string) {
    super(
      `${file} is missing: the database in ${path} is encrypted with the master key in it. Assay ` +
        `generates no new one, because every secret in the database would be lost. Restore ${file}, or set MASTER_KEYS to that key`,
    )
  }
}

/**
 * Opens and locks the folder, and creates it if needed. Throws SetupError, or DataDirInUse, because a
 * second process would corrupt the database.
 */
export function openDataDir(path: string): DataDir {
  // Absolute, so that PGlite never mistakes a name like memory:// for one of its own kinds of storage.
  const database = join(resolve(path), 'pgdata')
  const release = lockFolder(path)
  return { path, database, fresh: isEmpty(database), release }
}

function lockFolder(path: string) {
  try {
    mkdirSync(path, { recursive: true, mode: 0o700 })
    return acquireLock(join(path, 'assay.lock'))
  } catch (error) {
    const { code, syscall } = error as NodeJS.ErrnoException
    if (syscall !== undefined)
      throw new SetupError(
        `can't write to ${path} (${code}); set DATA_DIR to a folder that this user may write to`,
      )
    if (error instanceof LockHeldError) throw new DataDirInUseError(path, error.pid)
    throw error
  }
}

/**
 * Makes the folder of a database and everything in it accessible to its owner only, as Postgres requires for its own. PGlite
 * gives its first files mode 0666, whatever the umask is, and a restored copy may be accessible to others too. Throws SetupError.
 */
export function closeToOthers(database: string) {
  try {
    for (const entry of readdirSync(database, { recursive: true, withFileTypes: true }))
      restrict(join(entry.parentPath, entry.name))
    restrict(database)
  } catch (error) {
    const { code, path } = error as NodeJS.ErrnoException
    throw new SetupError(`can't change the mode of ${path} (${code}); make this user its owner with chown`)
  }
}

function restrict(path: string) {
  const { mode } = statSync(path)
  if ((mode & 0o077) !== 0) chmodSync(path, mode & 0o700)
}

function isEmpty(folder: string): boolean {
  return !existsSync(folder) || readdirSync(folder).length === 0
}

export interface SecretFile {
  path: string
  /** The content, to be parsed like the setting that the file replaces. */
  text: string
  /** For the log; holds no secret. */
  warnings: string[]
}

/**
 * Replaces MASTER_KEYS. The file is created before the database and never after it. If a start is
 * interrupted between the two, the next one finds the file without a database and uses it.
 */
export function masterKeysFile(dir: DataDir): SecretFile {
  const path = join(dir.path, 'master.keys')
  if (dir.fresh) createFile(path, `m1:${randomBytes(32).toString('base64')}\n`)
  else if (!existsSync(path)) throw new MasterKeyMissingError(path, dir.path)
  return readSecretFile(path)
}

/** Replaces ADMIN_TOKEN. Nothing is encrypted with the token, so a lost file can simply be recreated. */
export function adminTokenFile(dir: DataDir): SecretFile {
  const path = join(dir.path, 'admin.token')
  createFile(path, `${randomBytes(32).toString('base64url')}\n`)
  return readSecretFile(path)
}

function readSecretFile(path: string): SecretFile {
  const mode = statSync(path).mode & 0o777
  const isOpen = (mode & 0o077) !== 0
  const warning = `${path} holds a secret and has mode ${mode.toString(8)}, not 600; run: chmod 600 ${path}`
  return { path, text: secretText(readFileSync(path, 'utf8')), warnings: isOpen ? [warning] : [] }
}
