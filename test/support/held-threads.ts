import { execFileSync } from 'node:child_process'
import { closeSync, mkdtempSync, openSync, promises, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { onTestFinished } from 'vitest'

const THREADS = Number(process.env.UV_THREADPOOL_SIZE ?? 4)

/**
 * Keeps all threads of libuv busy until `release`, so that no signature is verified: each of them opens a pipe that nobody writes to.
 * They are released when the test ends.
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
    // A pipe that nobody reads yet can't be opened to write only.
    const writers = pipes.map(pipe => openSync(pipe, 'r+'))
    for (const file of await Promise.all(opened)) await file.close()
    for (const writer of writers) closeSync(writer)
    rmSync(folder, { recursive: true })
  }

  onTestFinished(release)
  return { release }
}
