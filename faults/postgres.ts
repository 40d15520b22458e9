import { execFile, execFileSync } from 'node:child_process'
import {
  appendFileSync,
  chownSync,
  globSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { freePort } from '../test/support/port.ts'
import { until } from '../test/support/process.ts'
import { childrenOf, hasEnded, signal } from './processes.ts'

/** A Postgres server that a test starts and may stop, freeze, crash and promote. */
export type OwnPostgres = Awaited<ReturnType<typeof startPostgres>>

const run = promisify(execFile)

/** Debian's folder with the highest version, or PG_BIN. Undefined if neither exists. */
export function findBinaries(): string | undefined {
  return process.env.PG_BIN ?? globSync('/usr/lib/postgresql/*/bin').sort().at(-1)
}

/** How the server checks passwords, additional lines for postgresql.conf, and additional environment variables. */
export interface ServerOptions {
  auth?: 'scram-sha-256' | 'md5'
  settings?: string[]
  env?: Record<string, string>
}

/** Every login needs a password, as in production. `url` is the superuser's. */
export const startPostgres = ({ auth = 'scram-sha-256', settings = [], env }: ServerOptions = {}) =>
  startCluster(async (command, data) => {
    const passwordFile = `${data}.password`
    writeFileSync(passwordFile, SUPERUSER_PASSWORD)
    await command(
      'initdb',
      '-D',
      data,
      '-U',
      'postgres',
      '-A',
      auth,
      `--pwfile=${passwordFile}`,
      '-E',
      'UTF8',
      '-N',
    )
    appendFileSync(join(data, 'postgresql.conf'), settings.map(line => `${line}\n`).join(''))
  }, env)

const SUPERUSER_PASSWORD = 'superuser-of-a-test'

/** A synchronous standby: once this returns, `primary` acknowledges nothing that the standby does not have. */
export async function startStandby(primary: OwnPostgres): Promise<OwnPostgres> {
  const standby = await startCluster((command, data) =>
    command('pg_basebackup', '-D', data, '-d', primary.url, '-R', '-c', 'fast', '--no-sync'),
  )
  await primary.waitForStandby()
  return standby
}

/** A copy of the current files of `original`: a primary of its own with the same system id and timeline. */
export const startCopy = (original: OwnPostgres): Promise<OwnPostgres> =>
  startCluster((command, data) =>
    command('pg_basebackup', '-D', data, '-d', original.url, '-c', 'fast', '--no-sync'),
  )

type Command = (name: string, ...args: string[]) => Promise<{ stdout: string }>

/** `fill` creates the data directory. */
async function startCluster(
  fill: (command: Command, data: string) => Promise<unknown>,
  env: Record<string, string> = {},
) {
  const bin = findBinaries()
  if (bin === undefined)
    throw new Error('Postgres is not installed; install it, or set PG_BIN to the folder that contains initdb')
  const as = identity()
  const folder = mkdtempSync(join(tmpdir(), 'assay-faults-'))
  if (as.uid !== undefined) chownSync(folder, as.uid, as.gid!)
  const port = await freePort()
  const url = `postgres://postgres:${SUPERUSER_PASSWORD}@127.0.0.1:${port}/postgres`
  const data = join(folder, 'data')
  const logFile = join(folder, 'log')
  const options = { ...as, cwd: folder, env: { PATH: process.env.PATH, LC_ALL: 'C', ...env } }
  const settings = `-c listen_addresses=127.0.0.1 -c port=${port} -c unix_socket_directories=${folder}`
  const command: Command = (name, ...args) => run(join(bin, name), args, options)
  const control = (...args: string[]) =>
    command('pg_ctl', '-D', data, '-l', logFile, '-o', settings, '-w', ...args)
  const ask = async (statement: string, database = 'postgres') => {
    const at = Object.assign(new URL(url), { pathname: `/${database}` }).href
    return (await command('psql', '-d', at, '-X', '-A', '-t', '-q', '-c', statement)).stdout.trim()
  }

  process.on('exit', endNow)
  await fill(command, data)
  await control('start')
  const pidFile = () => readFileSync(join(data, 'postmaster.pid'), 'utf8').split('\n')
  const master = () => Number(pidFile()[0])

  const everyProcess = (name: NodeJS.Signals) => {
    for (const pid of [master(), ...childrenOf(master())]) signal(pid, name)
  }

  /** Resolves when new connections use the current settings and pg_hba.conf. */
  async function reload() {
    const loadedAt = () => ask('select pg_conf_load_time()')
    const before = await loadedAt()
    await control('reload')
    await until('the settings are loaded', async () => (await loadedAt()) !== before)
  }

  function remove() {
    process.off('exit', endNow)
    rmSync(folder, { recursive: true, force: true })
  }

  /** Its processes must not outlive this process, frozen or not. */
  function endNow() {
    try {
      process.kill(master(), 'SIGCONT')
      const stop = ['-D', data, '-m', 'immediate', 'stop']
      execFileSync(join(bin!, 'pg_ctl'), stop, { ...options, stdio: 'ignore' })
    } catch {} // It has already ended.
    remove()
  }

  return {
    url,
    /** The user that it runs as; undefined ids mean this process's own. */
    owner: as,
    /** The folder of its Unix socket. */
    folder,
    ask,
    /** Copies the schema assay from one database into another, which must not have one. The URLs are superusers'. */
    async dump(from: string, into: string) {
      const file = join(folder, 'dump')
      await command('pg_dump', '-d', from, '--schema=assay', '-f', file)
      await command('psql', '-d', into, '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-f', file)
    },
    log: () => readFileSync(logFile, 'utf8'),
    /** Sets these lines of pg_hba.conf and pg_ident.conf. The superuser can always log in by password. */
    async setHba(lines: string[], ident: string[] = []) {
      const superuser = 'host all postgres 127.0.0.1/32 scram-sha-256'
      writeFileSync(join(data, 'pg_hba.conf'), [superuser, ...lines, ''].join('\n'))
      writeFileSync(join(data, 'pg_ident.conf'), [...ident, ''].join('\n'))
      await reload()
    },
    /** Enables TLS with this certificate, and trusts client certificates of this CA. */
    async speakTls({ cert, key, ca }: { cert: string; key: string; ca: string }) {
      const settings = { ssl: 'on', ssl_cert_file: cert, ssl_key_file: key, ssl_ca_file: ca }
      for (const [name, value] of Object.entries(settings)) await ask(`alter system set ${name} = '${value}'`)
      await reload()
    },
    restart: () => control('-m', 'fast', 'restart'),
    /** Simulates a power loss: every process ends at once, then the server starts and recovers from its log. */
    async crash() {
      // Stop it first, so that it starts no child processes that this list misses.
      process.kill(master(), 'SIGSTOP')
      const processes = [...childrenOf(master()), master()]
      for (const pid of processes) signal(pid, 'SIGKILL')
      await until('every process has ended', () => processes.every(hasEnded))
      // Without an init that reaps orphans, the old postmaster stays a zombie, and a new one would take it for a running server.
      for (const file of [join(data, 'postmaster.pid'), join(folder, `.s.PGSQL.${port}.lock`)]) rmSync(file)
      await control('start')
    },
    freeze: () => everyProcess('SIGSTOP'),
    thaw: () => everyProcess('SIGCONT'),
    promote: () => control('promote'),
    async waitForStandby() {
      await ask(`alter system set synchronous_standby_names = '*'`)
      await ask('select pg_reload_conf()')
      const synchronous = `select count(*) from pg_stat_replication where sync_state = 'sync'`
      await until('the standby is synchronous', async () => (await ask(synchronous)) === '1')
    },
    /** Kills every process and removes the data. */
    async destroy() {
      const segment = pidFile()[6]!.trim().split(/\s+/)[1]!
      everyProcess('SIGKILL')
      // A postmaster removes its shared memory segment when it exits normally.
      await run('ipcrm', ['-m', segment])
      remove()
    },
    async stop() {
      await control('-m', 'fast', 'stop')
      remove()
    },
  }
}

/** The user that servers run as; undefined ids mean this process's own. */
export interface Identity {
  uid?: number
  gid?: number
}

/** A Postgres server refuses to run as root. */
export function identity(): Identity {
  if (process.getuid?.() !== 0) return {}
  const id = (flag: string) => Number(execFileSync('id', [flag, 'postgres'], { encoding: 'utf8' }))
  return { uid: id('-u'), gid: id('-g') }
}
