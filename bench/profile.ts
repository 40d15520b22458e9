import type { Target } from './load.ts'
import { markdown } from './table.ts'

/** Uses V8's profiler, through the debugger of the running process, to measure where a loaded server spends its time. */

/** A server that opens its debugger on SIGUSR1. */
interface Profilable extends Target {
  complaint(): string
}

/** Self time of each function per answer (µs), in descending order. */
export type Profiled = [name: string, microseconds: number][]

/** Number of functions listed in a profile. */
const TOP = 25
/** Interval between two samples (µs). */
const INTERVAL = 250

export const canBeProfiled = (target: Target): target is Profilable => 'complaint' in target

export async function profileWhile(
  target: Profilable,
  round: () => Promise<{ rate: number; cpu: number }>,
): Promise<Profiled> {
  const session = await connect(target)
  await session.call('Profiler.enable')
  await session.call('Profiler.setSamplingInterval', { interval: INTERVAL })
  await session.call('Profiler.start')
  const { cpu } = await round()
  const { profile } = (await session.call('Profiler.stop')) as { profile: CpuProfile }
  session.close()
  return selfTimes(profile, cpu).slice(0, TOP)
}

export const tableOfProfile = (name: string, profiled: Profiled) =>
  markdown(
    [name, 'µs'],
    profiled.map(([what, time]) => [what, time.toFixed(2)]),
  )

interface CpuProfile {
  nodes: { id: number; callFrame: { functionName: string; url: string; lineNumber: number } }[]
  samples: number[]
  timeDeltas: number[]
}

/** Samples only give proportions, so they are scaled to a sum of the CPU time per answer. */
function selfTimes({ nodes, samples, timeDeltas }: CpuProfile, cpu: number): Profiled {
  const names = new Map(nodes.map(({ id, callFrame }) => [id, nameOf(callFrame)]))
  const times = new Map<string, number>()
  for (const [i, id] of samples.entries()) {
    const name = names.get(id)!
    if (name !== '(idle)') times.set(name, (times.get(name) ?? 0) + timeDeltas[i]!)
  }
  const all = [...times.values()].reduce((sum, each) => sum + each, 0)
  return [...times]
    .map(([name, time]): Profiled[number] => [name, (time / all) * cpu])
    .sort(([, a], [, b]) => b - a)
}

function nameOf({ functionName, url, lineNumber }: CpuProfile['nodes'][number]['callFrame']): string {
  if (url === '') return functionName || '(anonymous)'
  const file = url.replace(/^.*\/(?=(node_modules|server|db)\/)/, '')
  return `${functionName || '(anonymous)'} ${file}:${lineNumber + 1}`
}

interface Session {
  call(method: string, params?: object): Promise<unknown>
  close(): void
}

async function connect(target: Profilable): Promise<Session> {
  const socket = new WebSocket(await debuggerOf(target))
  await new Promise((resolve, reject) => {
    socket.onopen = resolve
    socket.onerror = () => reject(new Error('the debugger does not answer'))
  })
  const waiting = new Map<number, (result: unknown) => void>()
  socket.onmessage = ({ data }) => {
    const { id, result } = JSON.parse(String(data))
    waiting.get(id)?.(result)
  }
  let last = 0
  return {
    call: (method, params = {}) => {
      const id = ++last
      socket.send(JSON.stringify({ id, method, params }))
      return new Promise(resolve => waiting.set(id, resolve))
    },
    close: () => socket.close(),
  }
}

/** Number of checks for the debugger's address, one every 20 ms. */
const LOOKS = 250

async function debuggerOf({ pid, complaint }: Profilable): Promise<string> {
  const url = () => /Debugger listening on (ws:\S+)/.exec(complaint())?.[1]
  process.kill(pid, 'SIGUSR1')
  for (let looks = 0; looks < LOOKS && url() === undefined; looks++)
    await new Promise(resolve => setTimeout(resolve, 20))
  const found = url()
  if (found === undefined) throw new Error("the server's debugger did not open")
  return found
}
