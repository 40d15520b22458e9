import { globSync, readFileSync } from 'node:fs'

/** What /proc tells of processes: `ps` is not everywhere. */

export const childrenOf = (parent: number): number[] =>
  globSync('/proc/[0-9]*/stat')
    .filter(file => fieldsOf(file)[1] === String(parent))
    .map(file => Number(file.split('/')[2]))

/** T: stopped by a signal. Undefined: there is none. */
export const stateOf = (pid: number): string | undefined => fieldsOf(`/proc/${pid}/stat`)[0]

/** A zombie has ended; only its parent has not heard of it yet. */
export const hasEnded = (pid: number) => [undefined, 'Z'].includes(stateOf(pid))

/** A process that ended meanwhile needs none: a Postgres' children come and go. */
export function signal(pid: number, name: NodeJS.Signals) {
  try {
    process.kill(pid, name)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error
  }
}

/** From the third, the state: the name before it may hold spaces. The parent is the next. */
function fieldsOf(file: string): string[] {
  try {
    return readFileSync(file, 'utf8').split(') ').at(-1)!.split(' ')
  } catch {
    return [] // It ended meanwhile.
  }
}
