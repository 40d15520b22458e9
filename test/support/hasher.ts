import { Worker } from 'node:worker_threads'
import { vi } from 'vitest'
import type { PasswordJob } from '../../server/crypto/password-thread.ts'

/** Observes the jobs of the password hashing threads, so that tests need no substitute for the hasher. */

/** Counts the jobs. */
export function countHashes() {
  let running = 0
  const counts = { started: 0, most: 0 }
  const { stop } = watchHashes((worker, { id }) => {
    counts.started++
    counts.most = Math.max(counts.most, ++running)
    worker.on('message', function ended(answer: { id: number }) {
      if (answer.id !== id) return
      worker.off('message', ended)
      running--
    })
  })
  return {
    /** Returns how many hashes `run` starts and the most at the same time. */
    async during(run: () => Promise<unknown>): Promise<{ started: number; most: number }> {
      Object.assign(counts, { started: 0, most: running })
      await run()
      return { ...counts }
    },
    stop,
  }
}

interface Message {
  id: number
  job: PasswordJob
}

/** Calls `seen` for each job before its thread gets it. */
export function watchHashes(seen: (worker: Worker, message: Message) => void) {
  const { postMessage } = Worker.prototype
  const spy = vi.spyOn(Worker.prototype, 'postMessage').mockImplementation(function (this: Worker, message) {
    if ('job' in message) seen(this, message)
    postMessage.call(this, message)
  })
  return { stop: () => spy.mockRestore() }
}
