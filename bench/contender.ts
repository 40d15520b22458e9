import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { type LoadOptions, load, type Sample, type Target } from './load.ts'
import type { Plan } from './plan.ts'
import { cpuOf, memoryOf, SERVER, start } from './processes.ts'

/** One line of the table. */
export interface Contender {
  name: string
  /** What is loaded, in a word: the answers that are counted. */
  counts: string
  round(seconds: number): Promise<Sample>
}

/** Of everything that is measured by HTTP. */
export const CONNECTIONS = 32

export interface HttpOptions extends Partial<Pick<LoadOptions, 'connections'>> {
  /** Answers to count for one that comes. */
  worth?: number
  counts?: string
}

export const byHttp = (name: string, target: Target, plan: Plan, options: HttpOptions = {}): Contender => ({
  name,
  counts: options.counts ?? 'answers',
  async round(seconds) {
    const { connections = CONNECTIONS, worth = 1 } = options
    const sample = await load(plan, target, { connections, seconds })
    return { ...sample, rate: sample.rate * worth, cpu: sample.cpu / worth }
  },
})

/** What a server of ours or a peer says of itself in its first line. */
export interface Announced extends Target {
  plans: Record<string, Plan>
}

/** A server of bench/servers or bench/peers, on the servers' core. */
export async function announced(file: string, env: Record<string, string> = {}): Promise<Announced> {
  const child = start(SERVER, [process.execPath, join(import.meta.dirname, file)], {
    env: { PATH: process.env.PATH, NODE_ENV: 'production', ...env },
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const line = once(createInterface(child.stdout!), 'line') as Promise<[string]>
  const [text] = await Promise.race([line, once(child, 'exit').then(([code]) => died(file, code))])
  child.stdout!.resume()
  return { plans: {}, ...JSON.parse(text), pid: child.pid! }
}

function died(file: string, code: unknown): never {
  throw new Error(`${file} ended with ${code} before it said where it listens`)
}

/** One of bench/servers that is told by messages what to do. */
export interface Raw {
  child: ChildProcess
}

/** `customers`: what it is to know of them. */
export async function startRaw(
  file: string,
  customers: unknown[],
  env: Record<string, string>,
): Promise<Raw> {
  const child = fork(join(import.meta.dirname, file), {
    env: { PATH: process.env.PATH, CUSTOMERS: JSON.stringify(customers), ...env },
  })
  await Promise.race([once(child, 'message'), once(child, 'exit').then(([code]) => died(file, code))])
  return { child }
}

export const byRaw = (
  name: string,
  { child }: Raw,
  act: string,
  { callers = CONNECTIONS, counts = 'statements' } = {},
): Contender => ({
  name,
  counts,
  async round(seconds) {
    const before = cpuOf(child.pid!)
    child.send({ act, seconds, callers })
    const [{ requests, seconds: took, p50, p99 }] = await once(child, 'message')
    const cpu = ((cpuOf(child.pid!) - before) / requests) * 1e6
    return { rate: requests / took, p50, p99, cpu, memory: memoryOf(child.pid!) }
  },
})
