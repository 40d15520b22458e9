import { type ChildProcess, type SpawnOptions, spawn } from 'node:child_process'
import { once } from 'node:events'
import { globSync, readFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'

/** Servers run on the first core and the load on the second, if there are two. Postgres is not pinned. */
export const SERVER = 0
export const LOAD = 1

const started = new Set<ChildProcess>()

/** Starts a process on one core, or on all of them if `core` is undefined. The bench stops it when it ends. */
export function start(core: number | undefined, command: string[], options: SpawnOptions): ChildProcess {
  const pinned = core === undefined || availableParallelism() < 2 ? [] : ['taskset', '-c', String(core)]
  const [program, ...args] = [...pinned, ...command]
  const child = spawn(program!, args, options)
  started.add(child)
  void ended(child).then(() => started.delete(child))
  return child
}

const ended = (child: ChildProcess) => once(child, 'exit').catch(() => {}) // It could not be started.

export async function stop(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const exited = ended(child)
  child.kill('SIGTERM')
  await exited
}

export const stopAll = () => Promise.all([...started].map(stop))

/** A process and all its descendants. */
function familyOf(pid: number): number[] {
  const stats = globSync('/proc/[0-9]*/stat').flatMap(file => {
    const fields = statOf(file)
    return fields ? [{ pid: Number(file.split('/')[2]), parent: Number(fields[1]) }] : []
  })
  const below = (parent: number): number[] => [
    parent,
    ...stats.filter(each => each.parent === parent).flatMap(each => below(each.pid)),
  ]
  return below(pid)
}

/** Fields from the third on, the state. The second field, the name, may contain spaces. */
function statOf(file: string): string[] | undefined {
  const stat = read(file)
  return stat === '' ? undefined : stat.split(') ').at(-1)!.split(' ')
}

function read(file: string): string {
  try {
    return readFileSync(file, 'utf8')
  } catch {
    return '' // The process has ended.
  }
}

/** Clock ticks of /proc are hundredths of a second on Linux. */
const TICK = 0.01

/** CPU seconds of a process and its descendants. */
export function cpuOf(pid: number): number {
  const used = (fields = ['0']) => (Number(fields[11] ?? 0) + Number(fields[12] ?? 0)) * TICK
  return familyOf(pid).reduce((sum, each) => sum + used(statOf(`/proc/${each}/stat`)), 0)
}

/** Resident memory of a process and its descendants (MB). */
export function memoryOf(pid: number): number {
  return familyOf(pid).reduce((sum, each) => sum + residentOf(each), 0) / 1000
}

function residentOf(pid: number): number {
  try {
    return Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? 0) * 1.024
  } catch {
    return 0
  }
}

/**
 * CPU seconds of every Postgres process on this machine, including ended backends: two fields of a process hold the time of its
 * ended children.
 */
export function cpuOfPostgres(): number {
  const ofPostgres = globSync('/proc/[0-9]*/stat').flatMap(file => {
    const fields = /^\d+ \(postgres\) (.*)/s.exec(read(file))?.[1]?.split(' ')
    return fields ? [fields.slice(11, 15).reduce((sum, each) => sum + Number(each), 0)] : []
  })
  return ofPostgres.reduce((sum, each) => sum + each, 0) * TICK
}
