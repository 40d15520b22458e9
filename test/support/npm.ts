import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'

/** A script of package.json, as its users start it: by npm, in a process group of its own. */

const ROOT = join(import.meta.dirname, '../..')

export interface Script {
  /** npm's own process. */
  pid: number
  /** All that npm and the script wrote so far, to both streams. */
  output(): string
  /** Exit code, or the signal's name. */
  exited: Promise<number | string>
  /** Signals npm alone, as `kill` does. */
  kill(signal: NodeJS.Signals): void
  /** Signals npm and all that it started, as a terminal does. */
  interrupt(): void
}

const running = new Set<ChildProcess>()
process.on('exit', killAll)

/** For an afterEach: ends what a test left running, with what it started. */
export function killAll() {
  for (const { pid } of running) signalGroup(pid!, 'SIGKILL')
  running.clear()
}

function signalGroup(pid: number, signal: NodeJS.Signals) {
  try {
    process.kill(-pid, signal)
  } catch {} // Nobody is left in it.
}

/** `npm` with these words. The script gets PATH and `settings`, and npm asks no registry for a newer npm. */
export function npm(words: string[], settings: Record<string, string>): Script {
  const { PATH, HOME } = process.env
  const child = spawn('npm', words, {
    cwd: ROOT,
    env: { PATH, HOME, npm_config_update_notifier: 'false', ...settings },
    stdio: ['ignore', 'pipe', 'pipe'],
    detached: true,
  })
  running.add(child)
  let text = ''
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding('utf8').on('data', chunk => {
      text += chunk
    })
  // 'close' waits for whatever still has the streams: a server that npm left behind keeps it from settling.
  const exited = once(child, 'close').then(([code, signal]) => (code ?? signal) as number | string)
  return {
    pid: child.pid!,
    output: () => text,
    exited,
    kill: signal => void child.kill(signal),
    interrupt: () => signalGroup(child.pid!, 'SIGINT'),
  }
}
