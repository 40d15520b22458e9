import { execFile, execFileSync } from 'node:child_process'
import { chownSync, globSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { freePort } from '../support/port.ts'

/** A Postgres of our own, which may be stopped, frozen and crashed. */
export type OwnPostgres = Awaited<ReturnType<typeof startPostgres>>

const run = promisify(execFile)

/** Debian's place, newest last; PG_BIN for any other. Undefined where there is no server to start. */
export function findBinaries(): string | undefined {
  return process.env.PG_BIN ?? globSync('/usr/lib/postgresql/*/bin').sort().at(-1)
}

export async function startPostgres() {
  const bin = findBinaries()
  if (bin === undefined) throw new Error('no Postgres server to start: set PG_BIN to the folder of initdb')
  const as = identity()
  const folder = mkdtempSync(join(tmpdir(), 'assay-faults-'))
  if (as.uid !== undefined) chownSync(folder, as.uid, as.gid!)
  const port = await freePort()
  const data = join(folder, 'data')
  const logFile = join(folder, 'log')
  const options = { ...as, cwd: folder, env: { PATH: process.env.PATH, LC_ALL: 'C' } }
  const settings = `-c listen_addresses=127.0.0.1 -c port=${port} -c unix_socket_directories=${folder}`
  const control = (...args: string[]) =>
    run(join(bin, 'pg_ctl'), ['-D', data, '-l', logFile, '-o', settings, '-w', ...args], options)

  await run(join(bin, 'initdb'), ['-D', data, '-U', 'postgres', '-A', 'trust', '-N'], options)
  const master = () => Number(readFileSync(join(data, 'postmaster.pid'), 'utf8').split('\n')[0])
  await control('start')
  process.on('exit', endNow)

  const everyProcess = async (signal: NodeJS.Signals) => {
    for (const pid of [master(), ...(await childrenOf(master()))]) process.kill(pid, signal)
  }

  /** Nothing of it may outlive this process, frozen or not. */
  function endNow() {
    try {
      process.kill(master(), 'SIGCONT')
      execFileSync(join(bin!, 'pg_ctl'), ['-D', data, '-m', 'immediate', 'stop'], {
        ...options,
        stdio: 'ignore',
      })
    } catch {} // It has ended already.
    rmSync(folder, { recursive: true, force: true })
  }

  return {
    url: `postgres://postgres@127.0.0.1:${port}/postgres`,
    log: () => readFileSync(logFile, 'utf8'),
    restart: () => control('-m', 'fast', 'restart'),
    freeze: () => everyProcess('SIGSTOP'),
    thaw: () => everyProcess('SIGCONT'),
    async stop() {
      await control('-m', 'fast', 'stop')
      process.off('exit', endNow)
      rmSync(folder, { recursive: true, force: true })
    },
  }
}

/** A Postgres server refuses to run as root. */
function identity(): { uid?: number; gid?: number } {
  if (process.getuid?.() !== 0) return {}
  const id = (flag: string) => Number(execFileSync('id', [flag, 'postgres'], { encoding: 'utf8' }))
  return { uid: id('-u'), gid: id('-g') }
}

/** From /proc: `ps` is not everywhere. Field 4 of stat is the parent; the name before it may hold spaces. */
async function childrenOf(parent: number): Promise<number[]> {
  const statOf = (file: string) => {
    try {
      return readFileSync(file, 'utf8')
    } catch {
      return '' // It ended meanwhile.
    }
  }
  return globSync('/proc/[0-9]*/stat')
    .filter(file => Number(statOf(file).split(') ').at(-1)?.split(' ')[1]) === parent)
    .map(file => Number(file.split('/')[2]))
}
