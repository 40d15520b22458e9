import { once } from 'node:events'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { type Plan, toLua } from './plan.ts'
import { cpuOf, cpuOfPostgres, LOAD, memoryOf, start } from './processes.ts'
import { scratchFolder } from './scratch.ts'

/** One round of one contender. */
export interface Sample {
  /** Answers a second. */
  rate: number
  /** Milliseconds. */
  p50: number
  p99: number
  /** Processor time of the server for one answer (µs). */
  cpu: number
  /** Of every Postgres of the machine (µs). */
  postgres: number
  /** Resident memory of the server after it (MB). */
  memory: number
}

export interface Target {
  port: number
  pid: number
}

export interface LoadOptions {
  connections: number
  /** Whole ones. */
  seconds: number
}

/** Plans are written once: some have megabytes. */
const files = new Map<Plan, string>()

async function fileOf(plan: Plan): Promise<string> {
  const path = join(await scratchFolder(), 'plan.lua')
  await writeFile(path, toLua(plan))
  return path
}

/** Loads a server with what the plan holds. Throws when one answer is not what it must be, or doesn't come. */
export async function load(plan: Plan, { port, pid }: Target, options: LoadOptions): Promise<Sample> {
  const file = files.get(plan) ?? (await fileOf(plan))
  const before: [number, number] = [cpuOf(pid), cpuOfPostgres()]
  const { result, next } = await wrk(file, port, plan.from ?? 0, options)
  const { requests, seconds, p50, p99, wrong, sample, lost } = result
  if (plan.follow) goOn(plan, next)
  else files.set(plan, file)
  if (wrong + lost > 0 || requests === 0)
    throw new Error(`of ${requests} answers ${wrong} were wrong (${sample}) and ${lost} did not come`)
  if (plan.goesOn) advance(plan, requests + options.connections)
  return { rate: requests / seconds, p50, p99, ...costOf(pid, before, requests), memory: memoryOf(pid) }
}

/** Of one answer (µs). `before`: what `cpuOf` and `cpuOfPostgres` said then. */
export function costOf(pid: number, [server, postgres]: [number, number], answers: number) {
  const each = (seconds: number) => (seconds / answers) * 1e6
  return { cpu: each(cpuOf(pid) - server), postgres: each(cpuOfPostgres() - postgres) }
}

/** What was under way when the round ended is lost. */
function goOn(plan: Plan, next: string[]) {
  plan.requests = next.map((each, i) => ({ ...plan.requests[i]!, next: each }))
}

/** `sent`: at most. */
function advance(plan: Plan, sent: number) {
  const { length } = plan.requests
  if (sent > length) throw new Error(`${sent} requests were sent, of which only ${length} are different`)
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
  if (code !== 0 || line === undefined) throw new Error(`wrk ended with ${code}: ${output}`)
  const next = [...output.matchAll(/^NEXT (.*)$/gm)].map(([, each]) => each!)
  return { result: JSON.parse(line), next }
}
