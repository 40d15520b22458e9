import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { MIGRATES, PASSWORD, SERVES } from './database.ts'
import { freePort } from './port.ts'
import { until } from './process.ts'
import { findProgram } from './program.ts'

/** A pgbouncer in transaction mode, with none of the settings that Assay would otherwise require. */
export async function startPgbouncer(serverUrl: string) {
  const { hostname, port: serverPort } = new URL(serverUrl)
  const folder = mkdtempSync(join(tmpdir(), 'assay-pgbouncer-'))
  chmodSync(folder, 0o755)
  const port = await freePort()
  const ini = join(folder, 'pgbouncer.ini')
  const users = join(folder, 'users.txt')
  writeFileSync(
    users,
    loginsOf(serverUrl)
      .map(login => `${login.map(quoted).join(' ')}\n`)
      .join(''),
  )
  writeFileSync(
    ini,
    `[databases]
* = host=${hostname} port=${serverPort || 5432}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = ${port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = ${users}
pool_mode = transaction
default_pool_size = 20
max_client_conn = 2000
; The next statement goes to another connection of the server's than the last.
server_round_robin = 1
`,
  )
  const child = spawn(findProgram('pgbouncer')!, [...asNobody(), ini], {
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  let log = ''
  child.stderr.on('data', chunk => {
    log += chunk
  })
  const exited = once(child, 'exit')
  const end = () => child.kill('SIGKILL')
  process.on('exit', end)
  await until('pgbouncer listens', async () => {
    if (child.exitCode !== null) throw new Error(`pgbouncer did not start: ${log}`)
    return isListening(port)
  })

  return {
    /** The URL of the same database through pgbouncer. */
    through(url: string): string {
      const pooled = new URL(url)
      pooled.host = `127.0.0.1:${port}`
      return pooled.href
    },
    async stop() {
      process.off('exit', end)
      end()
      await exited
      rmSync(folder, { recursive: true })
    },
  }
}

/** Names and passwords of the superuser and the tests' two roles. */
const loginsOf = (serverUrl: string) => {
  const { username, password } = new URL(serverUrl)
  return [[username, decodeURIComponent(password)], ...[MIGRATES, SERVES].map(role => [role, PASSWORD])]
}

const quoted = (text: string) => `"${text.replaceAll('"', '""')}"`

/** pgbouncer refuses to run as root. */
function asNobody(): string[] {
  if (process.getuid?.() !== 0) return []
  execFileSync('id', ['-u', 'postgres'])
  return ['-u', 'postgres']
}

const isListening = (port: number) =>
  new Promise<boolean>(resolve => {
    const socket = connect(port, '127.0.0.1')
    socket.on('connect', () => {
      socket.destroy()
      resolve(true)
    })
    socket.on('error', () => resolve(false))
  })
