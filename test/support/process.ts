import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'

/** Runs the server as its users do: server/main.ts in another process, on a free port unless PORT is set. */

const MAIN = join(import.meta.dirname, '../../server/main.ts')
const CLI = join(import.meta.dirname, '../../cli/main.ts')
/** As in `npm start`. */
export const NODE_COMPILE_CACHE = join(import.meta.dirname, '../../node_modules/.cache/assay')

/** How long a start may take on a busy machine before a test considers it hung (ms). */
const START_DEADLINE = 60_000

/** Processes that start at the same time share the cores. */
const deadlineOf = (settings: Settings) => ('WORKERS' in settings ? 3 : 1) * START_DEADLINE

/** Environment variables of the server. Of this process's own environment the child gets only PATH. */
export type Settings = Record<string, string>

export interface Running {
  pid: number
  port: number
  url: string
  child: ChildProcess
  /** Output so far. */
  stdout(): string
  stderr(): string
  /** Exit code, or the signal's name. */
  exited: Promise<number | string>
  /** Signals it and waits until it has ended. */
  stop(signal?: NodeJS.Signals): Promise<number | string>
}

export interface Ended {
  code: number | string
  stdout: string
  stderr: string
}

/** Processes that are still running, each with its end. */
const living = new Map<ChildProcess, Promise<unknown>>()
process.on('exit', () => {
  for (const child of living.keys()) child.kill('SIGKILL')
})

/** For an afterEach: ends all processes that a test left running, and waits for them. */
export async function stopAll(): Promise<void> {
  for (const child of living.keys()) child.kill('SIGKILL')
  await Promise.allSettled(living.values())
}

/**
 * Resolves once it logs that it listens; throws with its output if it ends before that. LOG_LEVEL must include info.
 * `program`: the server/main.ts of another version.
 */
export async function startAssay(settings: Settings, args: string[] = [], program = MAIN): Promise<Running> {
  const { child, exited, stdout, stderr } = launch(settings, args, program)
  const { port } = await listeningLine(child, stdout, exited, deadlineOf(settings)).catch(cause => {
    child.kill('SIGKILL')
    throw new Error(`assay did not start: ${stdout()}${stderr()}`, { cause })
  })
  const stop = (signal: NodeJS.Signals = 'SIGTERM') => {
    child.kill(signal)
    return exited
  }
  return { pid: child.pid!, port, url: `http://127.0.0.1:${port}`, child, stdout, stderr, exited, stop }
}

/** Runs a start that should fail, or a command. Resolves when it has ended. */
export async function runAssay(settings: Settings, args: string[] = [], program = MAIN): Promise<Ended> {
  return ended(launch(settings, args, program), settings)
}

/** Runs `assay` with these arguments. `input` is piped into it. */
export async function runCli(settings: Settings, args: string[], input = ''): Promise<Ended> {
  return ended(launch(settings, args, CLI, input), settings)
}

/** `assay` with these words, which runs until it is signalled. */
export function startCli(settings: Settings, args: string[]) {
  const { child, exited, stdout, stderr } = launch(settings, args, CLI)
  const stop = (signal: NodeJS.Signals) => {
    child.kill(signal)
    return exited
  }
  return { stdout, stderr, exited, stop }
}

async function ended(
  { child, exited, stdout, stderr }: ReturnType<typeof launch>,
  settings: Settings,
): Promise<Ended> {
  const hung = setTimeout(() => child.kill('SIGKILL'), deadlineOf(settings))
  const code = await exited
  clearTimeout(hung)
  return { code, stdout: stdout(), stderr: stderr() }
}

function launch(settings: Settings, args: string[], program: string, input?: string) {
  const child = spawn(process.execPath, [program, ...args], {
    env: { PATH: process.env.PATH, NODE_COMPILE_CACHE, PORT: '0', ...settings },
    stdio: [input === undefined ? 'ignore' : 'pipe', 'pipe', 'pipe'],
  })
  child.stdin?.on('error', () => {}).end(input)
  const stdout = collect(child.stdout!)
  const stderr = collect(child.stderr!)
  // 'close' comes after the last byte of both streams; 'exit' may come before it.
  const exited = once(child, 'close')
    .then(([code, signal]) => (code ?? signal) as number | string)
    .finally(() => living.delete(child))
  living.set(child, exited)
  return { child, exited, stdout, stderr }
}

function collect(stream: NodeJS.ReadableStream): () => string {
  let text = ''
  stream.setEncoding('utf8').on('data', chunk => {
    text += chunk
  })
  return () => text
}

/** The log line that names the port, once it is complete. */
function listeningLine(
  child: ChildProcess,
  stdout: () => string,
  exited: Promise<number | string>,
  deadline: number,
) {
  return new Promise<{ port: number }>((resolve, reject) => {
    const look = () => {
      const line = stdout()
        .split('\n')
        .slice(0, -1)
        .find(text => text.includes('"msg":"listening"'))
      if (line) whenReady(() => resolve(JSON.parse(line)))
    }
    const late = setTimeout(() => whenReady(() => reject(new Error('no word in time'))), deadline)
    const whenReady = (outcome: () => void) => {
      clearTimeout(late)
      child.stdout?.off('data', look)
      outcome()
    }
    child.stdout?.on('data', look)
    exited.then(code => whenReady(() => reject(new Error(`it exited with ${code}`))), reject)
  })
}

/** The log lines so far, parsed. */
// biome-ignore lint/suspicious/noExplicitAny: tests state what they expect of a line.
export function logLines(running: { stdout(): string }): any[] {
  return running
    .stdout()
    .split('\n')
    .filter(line => line.startsWith('{') && line.endsWith('}'))
    .map(line => JSON.parse(line))
}

/** Polls a condition until it holds; throws when the deadline (ms) has passed. */
export async function until(what: string, holds: () => boolean | Promise<boolean>, deadline = 60_000) {
  const end = performance.now() + deadline
  while (!(await holds())) {
    if (performance.now() > end) throw new Error(`not within ${deadline} ms: ${what}`)
    await new Promise(resolve => setTimeout(resolve, 10))
  }
}
