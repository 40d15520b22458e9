import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'

/** Runs commands that start servers as users do, package.json scripts above all: each in its own process group. */

const ROOT = join(import.meta.dirname, '../..')

export interface Script {
  /** The process of npm or bash. */
  pid: number
  /** The output so far, from both streams. */
  output(): string
  /** Exit code, or the signal's name. */
  exited: Promise<number | string>
  /** Signals npm or bash alone, as `kill` does. */
  kill(signal: NodeJS.Signals): void
  /** Signals it and all processes it started, as a terminal does. */
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
export const npm = (words: string[], settings: Record<string, string>): Script => run('npm', words, settings)

/** Runs commands that a page shows in bash, with the same environment. */
export const bash = (commands: string, settings: Record<string, string>, cwd = ROOT): Script =>
  run('bash', ['-O', 'expand_aliases', '-ec', commands], settings, cwd)

function run(command: string, words: string[], settings: Record<string, string>, cwd = ROOT): Script {
  const { PATH, HOME } = process.env
  const child = spawn(command, words, {
    cwd,
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
