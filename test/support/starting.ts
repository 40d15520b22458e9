import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { NODE_COMPILE_CACHE, until } from './process.ts'

/** A start that a signal ends, as an ordinary process or as process 1 of a PID namespace, as in a container. */

const ROOT = join(import.meta.dirname, '../..')

const UNSHARE = ['unshare', '--pid', '--fork', '--mount-proc', '--kill-child']

/** Whether this user may create namespaces. */
export const canUnshare = spawnSync(UNSHARE[0]!, [...UNSHARE.slice(1), 'true']).status === 0

export interface StartOptions {
  settings: Record<string, string>
  /** The program from the root, `server/main.ts`, and its arguments. */
  command: string[]
  asInit?: boolean
  /** Replaces /etc/resolv.conf. Requires `asInit`. */
  resolvConf?: string
}

export interface Starting {
  stdout(): string
  stderr(): string
  /** Resolves once the process has signal handlers, Node's own or ours: before that the kernel decides. */
  hasHandlers(): Promise<void>
  signal(name: NodeJS.Signals): void
  /** Exit code, or the signal's name. */
  exited: Promise<number | string>
  /** Whether any process of this start is left. */
  isLeft(): boolean
}

const groups = new Set<number>()
process.on('exit', killStarts)

/** For an afterEach. */
export function killStarts() {
  for (const pid of groups) signalTo(-pid, 'SIGKILL')
  groups.clear()
}

export function beginStart({ settings, command, asInit = false, resolvConf }: StartOptions): Starting {
  const [program, ...words] = command
  const node = [process.execPath, join(ROOT, program!), ...words]
  const mounted = ['sh', '-c', `mount --bind ${resolvConf} /etc/resolv.conf && exec "$@"`, 'sh', ...node]
  const [file, ...args] = asInit ? [...UNSHARE, ...(resolvConf === undefined ? node : mounted)] : node
  const env = { PATH: process.env.PATH, NODE_COMPILE_CACHE, PORT: '0', ...settings }
  const child = spawn(file!, args, { env, stdio: ['ignore', 'pipe', 'pipe'], detached: true })
  const group = child.pid!
  groups.add(group)
  const text = { stdout: '', stderr: '' }
  for (const name of ['stdout', 'stderr'] as const)
    child[name].setEncoding('utf8').on('data', chunk => {
      text[name] += chunk
    })
  const target = () => (asInit ? childOf(group) : group)
  return {
    stdout: () => text.stdout,
    stderr: () => text.stderr,
    hasHandlers: () => until('it has handlers', () => catchesBoth(target())),
    signal: name => signalTo(target()!, name),
    exited: once(child, 'close').then(([code, signal]) => code ?? signal),
    isLeft: () => signalTo(-group, 0),
  }
}

/** Whether this process or process group exists. */
function signalTo(pid: number, signal: NodeJS.Signals | 0): boolean {
  try {
    return process.kill(pid, signal)
  } catch {
    return false
  }
}

function childOf(pid: number): number | undefined {
  const [first] = readProc(`${pid}/task/${pid}/children`).split(' ')
  return first ? Number(first) : undefined
}

/** SIGINT is signal 2, SIGTERM 15; a signal n is bit n - 1 of the mask. */
function catchesBoth(pid: number | undefined): boolean {
  const [, mask = '0'] = /^SigCgt:\s*(\w+)$/m.exec(readProc(`${pid}/status`)) ?? []
  return (BigInt(`0x${mask}`) & 0x4002n) === 0x4002n
}

function readProc(file: string): string {
  try {
    return readFileSync(`/proc/${file}`, 'utf8')
  } catch {
    return ''
  }
}
