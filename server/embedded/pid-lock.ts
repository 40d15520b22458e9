import { execFileSync } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import {
  closeSync,
  fsyncSync,
  linkSync,
  openSync,
  readFileSync,
  renameSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs'
import { dirname } from 'node:path'
import { z } from 'zod'

/**
 * A lock file that names the process that holds it. The lock is free again once that process is gone. It
 * works only among processes that see each other's pids, so not between two containers that share a folder.
 */

const holderSchema = z.object({
  pid: z.int().positive(),
  /** Distinguishes the holder from a later process with the same pid. Empty if it is unknown. */
  startedAt: z.string(),
  /** Unique for each acquisition of the lock. */
  id: z.uuid(),
})
type Holder = z.infer<typeof holderSchema>

export class LockHeldError extends Error {
  readonly pid: number

  constructor(path: string, pid: number) {
    super(`${path} is held by process ${pid}`)
    this.name = 'LockHeld'
    this.pid = pid
  }
}

/**
 * Acquires the lock. Returns a function that releases it unless another process has it by then, and that is safe to call twice.
 * Throws LockHeldError while a live process holds it, even if that is this process.
 */
export function acquireLock(path: string): () => void {
  const mine = { pid: process.pid, startedAt: processStart(process.pid) ?? '', id: randomUUID() }
  while (!createFile(path, JSON.stringify(mine))) {
    const holder = readHolder(path)
    // The lock was released in the meantime, so try again.
    if (holder === undefined) continue
    if (isAlive(holder)) throw new LockHeldError(path, holder.pid)
    if (takeOver(path, holder, mine)) break
  }
  return () => release(path, mine)
}

/**
 * Replaces a stale lock. Only the holder of a second lock, named after the stale one, may do so, and only
 * after reading the file again. Ids are never reused, so a process that comes late finds another id and
 * changes nothing. A process that dies here leaves a stale second lock, which is taken over in the same way.
 */
function takeOver(path: string, stale: Holder, mine: Holder): boolean {
  const releaseClaim = acquireLock(`${path}.${stale.id}`)
  try {
    if (readHolder(path)?.id !== stale.id) return false
    withTemporary(path, JSON.stringify(mine), temporary => renameSync(temporary, path))
    return true
  } finally {
    releaseClaim()
  }
}

function release(path: string, mine: Holder): void {
  // There is no race: no other process replaces the lock of a live holder.
  if (readHolder(path)?.id === mine.id) unlinkSync(path)
}

function readHolder(path: string): Holder | undefined {
  const text = unlessMissing(() => readFileSync(path, 'utf8'))
  if (text === undefined) return undefined
  try {
    return holderSchema.parse(JSON.parse(text))
  } catch {
    // Our lock files are created with their content, so this one belongs to an unknown program.
    throw new Error(`${path} is not a lock file of Assay; remove it if no other process uses the folder`)
  }
}

function isAlive({ pid, startedAt }: Holder): boolean {
  if (!exists(pid)) return false
  const now = processStart(pid)
  // If the start is unknown, the holder counts as alive, unless it has our own pid: then it is dead (pid 1 of a container).
  if (startedAt === '' || now === undefined) return pid !== process.pid
  return now === startedAt
}

function exists(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    // EPERM means that the process exists and belongs to another user.
    return (error as NodeJS.ErrnoException).code !== 'ESRCH'
  }
}

/** When a process started, only to be compared; `gone` for a zombie, undefined if it is unknown. */
function processStart(pid: number): string | undefined {
  try {
    return process.platform === 'linux' ? startFromProc(pid) : startFromPs(pid)
  } catch {
    return undefined
  }
}

// proc_pid_stat(5): field 2 (the name) may contain parentheses. The last one is followed by fields 3 (state) to 22 (start).
function startFromProc(pid: number): string | undefined {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return fields[0] === 'Z' ? 'gone' : fields[19]
}

function startFromPs(pid: number): string | undefined {
  // Processes with different languages or time zones must read the same text.
  const env = { LC_ALL: 'C', TZ: 'UTC' }
  const columns = ['-o', 'stat=', '-o', 'lstart=']
  const row = execFileSync('/bin/ps', [...columns, '-p', `${pid}`], { env, encoding: 'utf8' })
  const [state = '', ...start] = row.trim().split(/\s+/)
  return state.startsWith('Z') ? 'gone' : start.join(' ')
}

/**
 * Creates a file, or returns false if it exists. The file never appears without its content, even after a
 * crash.
 */
export function createFile(path: string, text: string): boolean {
  return withTemporary(path, text, temporary => {
    try {
      linkSync(temporary, path)
      return true
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false
      throw error
    }
  })
}

function withTemporary<T>(path: string, text: string, use: (temporary: string) => T): T {
  const temporary = `${path}.${randomUUID()}.tmp`
  try {
    writeFileSync(temporary, text, { flag: 'wx', mode: 0o600, flush: true })
    const result = use(temporary)
    syncFolder(dirname(path))
    return result
  } finally {
    unlessMissing(() => unlinkSync(temporary))
  }
}

// A new name lasts through a power cut only once its folder has been flushed too.
function syncFolder(path: string): void {
  const folder = openSync(path, 'r')
  try {
    fsyncSync(folder)
  } finally {
    closeSync(folder)
  }
}

function unlessMissing<T>(act: () => T): T | undefined {
  try {
    return act()
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw error
  }
}
