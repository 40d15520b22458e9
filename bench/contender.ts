import { type ChildProcess, fork } from 'node:child_process'
import { once as event } from 'node:events'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { costOf, type LoadOptions, load, type Sample, type Target } from './load.ts'
import { once } from './once.ts'
import type { Plan } from './plan.ts'
import { cpuOf, cpuOfPostgres, memoryOf, SERVER, start } from './processes.ts'
import { canBeProfiled, type Profiled, profileWhile } from './profile.ts'

/** One line of the table. Its first round, the warm-up, starts everything that it needs. */
export interface Contender {
  name: string
  /** The unit of `rate`, such as answers or tokens. */
  counts: string
  round(seconds: number): Promise<Sample>
  /** Time per function of its server during a round. Undefined if the server is not Assay. */
  profile?(seconds: number): Promise<Profiled | undefined>
}

/** Number of connections for everything that is measured by HTTP. */
export const CONNECTIONS = 32

export interface HttpOptions extends Partial<Pick<LoadOptions, 'connections'>> {
  /** Number of answers that each response counts as. */
  worth?: number
  counts?: string
}

export interface Loaded {
  target: Target
  plan: Plan
}

/** `prepare` returns the server to load and the plan. */
export function byHttp(name: string, prepare: () => Promise<Loaded>, options: HttpOptions = {}): Contender {
  const { connections = CONNECTIONS, worth = 1, counts = 'answers' } = options
  const prepared = once(prepare)
  const round = async (seconds: number) => {
    const { plan, target } = await prepared()
    const sample = await load(plan, target, { connections, seconds })
    return {
      ...sample,
      rate: sample.rate * worth,
      cpu: sample.cpu / worth,
      postgres: sample.postgres / worth,
    }
  }
  const profile = async (seconds: number) => {
    const { target } = await prepared()
    return canBeProfiled(target) ? profileWhile(target, () => round(seconds)) : undefined
  }
  return { name, counts, round, profile }
}

/** The first output line of a server of bench/servers or bench/peers. */
export interface Announced extends Target {
  plans: Record<string, Plan>
}

/** Starts a server of bench/servers or bench/peers on the servers' core. */
export async function announced(file: string, env: Record<string, string> = {}): Promise<Announced> {
  const child = start(SERVER, [process.execPath, join(import.meta.dirname, file)], {
    env: { PATH: process.env.PATH, NODE_ENV: 'production', ...env },
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const line = event(createInterface(child.stdout!), 'line') as Promise<[string]>
  const [text] = await Promise.race([line, event(child, 'exit').then(([code]) => died(file, code))])
  child.stdout!.resume()
  return { plans: {}, ...JSON.parse(text), pid: child.pid! }
}

function died(file: string, code: unknown): never {
  throw new Error(`${file} exited with ${code} before it was ready`)
}

/** Starts a process of bench/servers that is controlled by messages. */
export async function startRaw(file: string, env: Record<string, string>): Promise<ChildProcess> {
  const child = fork(join(import.meta.dirname, file), { env: { PATH: process.env.PATH, ...env } })
  await Promise.race([event(child, 'message'), event(child, 'exit').then(([code]) => died(file, code))])
  return child
}

export function byRaw(name: string, prepare: () => Promise<ChildProcess>): Contender {
  const prepared = once(prepare)
  return {
    name,
    counts: 'statements',
    async round(seconds) {
      const child = await prepared()
      const before: [number, number] = [cpuOf(child.pid!), cpuOfPostgres()]
      child.send({ seconds, callers: CONNECTIONS })
      const { requests, seconds: took, p50, p99 } = await answer(child, name)
      const cost = costOf(child.pid!, before, requests)
      return { rate: requests / took, p50, p99, ...cost, memory: memoryOf(child.pid!) }
    },
  }
}

async function answer(child: ChildProcess, name: string) {
  const ended = event(child, 'exit').then(([code]) => died(name, code))
  const [measured] = await Promise.race([event(child, 'message'), ended])
  return measured
}
