import type { ChildProcess } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import { freePort } from '../test/support/port.ts'
import type { Target } from './load.ts'
import { SERVER, start, stop } from './processes.ts'
import type { Tree } from './trees.ts'

/** Starts the server as its users do. */

export const ISSUER = 'http://assay.bench'
export const GATEWAY = { id: 'gateway', secret: 'Gw7fQ2mZk1Vx9sTb4Yc6Lr8Np3Hd5Je0Ua' }
export const MASTER_KEY = randomBytes(32)

export interface Assay extends Target {
  /** Time from its start until it was ready (ms). */
  readyAfter: number
  adminToken: string
  /** Everything written to its standard error. */
  complaint(): string
  stop(): Promise<void>
}

export type Settings = Record<string, string>

/**
 * Starts Assay with its default settings, apart from those that name its database, keys and clients. `log`: `unread` is a pipe
 * that is not read.
 */
export async function startAssay(
  tree: Tree,
  settings: Settings,
  log: 'ignored' | 'unread' = 'ignored',
): Promise<Assay> {
  const port = await freePort()
  const adminToken = randomBytes(30).toString('hex')
  const began = performance.now()
  const command = [process.execPath, ...('WORKERS' in settings ? [] : FLAGS), MAIN]
  const child = start('WORKERS' in settings ? undefined : SERVER, command, {
    cwd: tree.folder,
    env: { ...common(tree), ADMIN_TOKEN: adminToken, ...settings, PORT: String(port) },
    stdio: ['ignore', log === 'unread' ? 'pipe' : 'ignore', 'pipe'],
  })
  const complaint = collected(child)
  const readyAfter = await ready(port, child, began).catch(async error => {
    await stop(child)
    throw new Error(`${(error as Error).message}: ${complaint()}`)
  })
  return { port, pid: child.pid!, readyAfter, adminToken, complaint, stop: () => stop(child) }
}

const MAIN = 'server/main.ts'
/**
 * The debugger only listens after SIGUSR1, which profile.ts sends, and then on a free port. Each worker would need a port of its
 * own.
 */
const FLAGS = ['--inspect-port=127.0.0.1:0']

const common = ({ folder }: Tree): Settings => ({
  // Same as `npm start`.
  NODE_COMPILE_CACHE: join(folder, 'node_modules/.cache/assay'),
  PATH: process.env.PATH ?? '',
  ISSUER,
  MASTER_KEYS: `m1:${MASTER_KEY.toString('base64')}`,
  SERVICES: `${GATEWAY.id}:introspect:${GATEWAY.secret}`,
  // The name of this setting at the commit that the targets compare with.
  RESOURCE_SERVERS: `${GATEWAY.id}:${GATEWAY.secret}`,
  // Who logs in comes from many addresses, or the limit on logins would be what is measured.
  TRUST_PROXY: '127.0.0.1',
  // Tokens issued during preparation must live as long as the bench.
  ACCESS_TOKEN_TTL: '24h',
  MAX_ACCESS_TOKEN_TTL: '24h',
  // The load asks a few customers for as much as the server can handle.
  TOKENS_PER_MINUTE: '1000000000',
})

function collected(child: ChildProcess) {
  let text = ''
  child.stderr!.setEncoding('utf8').on('data', chunk => {
    text += chunk
  })
  return () => text
}

/** Interval between two checks, which is also the precision of the start time (ms). */
const LOOK = 5

async function ready(port: number, child: ChildProcess, began: number): Promise<number> {
  for (;;) {
    const answer = await fetch(`http://127.0.0.1:${port}/readyz`).catch(() => undefined)
    if (answer?.ok) return performance.now() - began
    if (child.exitCode !== null) throw new Error('Assay did not start')
    await new Promise(resolve => setTimeout(resolve, LOOK))
  }
}
