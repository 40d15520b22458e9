import { execFileSync } from 'node:child_process'
import { closeSync, mkdtempSync, openSync, promises, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { onTestFinished } from 'vitest'

const THREADS = Number(process.env.UV_THREADPOOL_SIZE ?? 4)

/**
 * Blocks all libuv threads until `release`, so that no signature is verified. Each thread opens a pipe that has no
 * writer. Released at the latest when the test ends.
 */
export function holdThreads() {
  const folder = mkdtempSync(join(tmpdir(), 'held-threads-'))
  const pipes = Array.from({ length: THREADS }, (_, i) => join(folder, `${i}`))
  execFileSync('mkfifo', pipes)
  const opened = pipes.map(pipe => promises.open(pipe))
  let isHeld = true

  async function release() {
    if (!isHeld) return
    isHeld = false
    // A pipe without a reader can't be opened write-only.
    const writers = pipes.map(pipe => openSync(pipe, 'r+'))
    for (const file of await Promise.all(opened)) await file.close()
    for (const writer of writers) closeSync(writer)
    rmSync(folder, { recursive: true })
  }

  onTestFinished(release)
  return { release }
}
