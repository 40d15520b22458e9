import { once } from 'node:events'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { type Plan, toLua } from './plan.ts'
import { cpuOf, cpuOfPostgres, LOAD, memoryOf, start } from './processes.ts'
import { scratchFolder } from './scratch.ts'

/** One round of one contender. */
export interface Sample {
  /** Answers per second. */
  rate: number
  /** In milliseconds. */
  p50: number
  p99: number
  /** CPU time of the server per answer (µs). */
  cpu: number
  /** CPU time per answer of every Postgres process on the machine (µs). */
  postgres: number
  /** Resident memory of the server after the round (MB). */
  memory: number
}

export interface Target {
  port: number
  pid: number
}

export interface LoadOptions {
  connections: number
  /** A whole number. */
  seconds: number
}

/** Each plan is written once, because some have megabytes. */
const files = new Map<Plan, string>()

async function fileOf(plan: Plan): Promise<string> {
  const path = join(await scratchFolder(), 'plan.lua')
  await writeFile(path, toLua(plan))
  return path
}

/** Loads a server with the requests of a plan. Throws if an answer is wrong or missing. */
export async function load(plan: Plan, { port, pid }: Target, options: LoadOptions): Promise<Sample> {
  const file = files.get(plan) ?? (await fileOf(plan))
  const before: [number, number] = [cpuOf(pid), cpuOfPostgres()]
  const { result, next } = await wrk(file, port, plan.from ?? 0, options)
  const { requests, seconds, p50, p99, wrong, sample, lost } = result
  if (plan.follow) goOn(plan, next)
  else files.set(plan, file)
  if (wrong + lost > 0 || requests === 0)
    throw new Error(`of ${requests} answers ${wrong} were wrong (${sample}) and ${lost} were missing`)
  if (plan.goesOn) advance(plan, requests + options.connections)
  return { rate: requests / seconds, p50, p99, ...costOf(pid, before, requests), memory: memoryOf(pid) }
}

/** CPU time per answer (µs). `before`: the results of `cpuOf` and `cpuOfPostgres` at the start. */
export function costOf(pid: number, [server, postgres]: [number, number], answers: number) {
  const each = (seconds: number) => (seconds / answers) * 1e6
  return { cpu: each(cpuOf(pid) - server), postgres: each(cpuOfPostgres() - postgres) }
}

/** Continues with the rotated tokens. Answers still in flight at the end of the round are lost. */
function goOn(plan: Plan, next: string[]) {
  plan.requests = next.map((each, i) => ({ ...plan.requests[i]!, next: each }))
}

/** `sent`: an upper bound. */
function advance(plan: Plan, sent: number) {
  const { length } = plan.requests
  if (sent > length) throw new Error(`${sent} requests were sent, but the plan has only ${length}`)
  plan.from = ((plan.from ?? 0) + sent) % length
}

interface WrkResult {
  requests: number
  seconds: number
  p50: number
  p99: number
  wrong: number
  sample: string
  lost: number
}

async function wrk(
  plan: string,
  port: number,
  from: number,
  { connections, seconds }: LoadOptions,
): Promise<{ result: WrkResult; next: string[] }> {
  const url = `http://127.0.0.1:${port}`
  const script = join(import.meta.dirname, 'wrk.lua')
  const command = ['wrk', '-t1', `-c${connections}`, `-d${seconds}s`, '--timeout', '10s', '-s', script, url]
  const env = { PATH: process.env.PATH, BENCH_PLAN: plan, BENCH_FROM: String(from) }
  const child = start(LOAD, command, { env, stdio: ['ignore', 'pipe', 'inherit'] })
  const exited = once(child, 'exit')
  const output = await text(child.stdout!)
  const [code] = await exited
  const line = /^BENCH (.*)$/m.exec(output)?.[1]
  if (code !== 0 || line === undefined) throw new Error(`wrk exited with ${code}: ${output}`)
  const next = [...output.matchAll(/^NEXT (.*)$/gm)].map(([, each]) => each!)
  return { result: JSON.parse(line), next }
}
