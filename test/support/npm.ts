import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'

/** Runs a package.json script as users do: with npm, in its own process group. */

const ROOT = join(import.meta.dirname, '../..')

export interface Script {
  /** npm's own process. */
  pid: number
  /** The output of npm and the script so far, from both streams. */
  output(): string
  /** Exit code, or the signal's name. */
  exited: Promise<number | string>
  /** Signals npm alone, as `kill` does. */
  kill(signal: NodeJS.Signals): void
  /** Signals npm and all processes it started, as a terminal does. */
  interrupt(): void
}

const running = new Set<ChildProcess>()
process.on('exit', killAll)

/** For an afterEach: ends whatever processes a test left running. */
export function killAll() {
  for (const { pid } of running) signalGroup(pid!, 'SIGKILL')
  running.clear()
}

function signalGroup(pid: number, signal: NodeJS.Signals) {
  try {
    process.kill(-pid, signal)
  } catch {} // The process group is empty.
}

/** Runs `npm` with these arguments. The script gets PATH and `settings`; npm does not check for updates. */
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
  // 'close' waits until every process has closed the streams: it does not fire while npm leaves a server behind.
  const exited = once(child, 'close').then(([code, signal]) => (code ?? signal) as number | string)
  return {
    pid: child.pid!,
    output: () => text,
    exited,
    kill: signal => void child.kill(signal),
    interrupt: () => signalGroup(child.pid!, 'SIGINT'),
  }
}
