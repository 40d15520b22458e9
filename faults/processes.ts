import { globSync, readFileSync } from 'node:fs'

/** Reads processes from /proc, because `ps` is not installed everywhere. */

export const childrenOf = (parent: number): number[] =>
  globSync('/proc/[0-9]*/stat')
    .filter(file => fieldsOf(file)[1] === String(parent))
    .map(file => Number(file.split('/')[2]))

/** T: stopped by a signal. Undefined if there is no such process. */
export const stateOf = (pid: number): string | undefined => fieldsOf(`/proc/${pid}/stat`)[0]

/** A zombie has ended, but its parent has not collected its status yet. */
export const hasEnded = (pid: number) => [undefined, 'Z'].includes(stateOf(pid))

/** Ignores a process that has already ended, because child processes of Postgres come and go. */
export function signal(pid: number, name: NodeJS.Signals) {
  try {
    process.kill(pid, name)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error
  }
}

/** Fields from the third on: the state, then the parent. The second field, the name, may contain spaces. */
function fieldsOf(file: string): string[] {
  try {
    return readFileSync(file, 'utf8').split(') ').at(-1)!.split(' ')
  } catch {
    return [] // The process has ended.
  }
}
