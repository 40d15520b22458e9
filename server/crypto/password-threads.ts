import { availableParallelism } from 'node:os'
import { Worker } from 'node:worker_threads'
import type { PasswordAnswer, PasswordJob } from './password-thread.ts'

/** One core stays free for requests. More than three threads would hash more than anyone needs. */
export const MAX_PASSWORD_THREADS = Math.max(1, Math.min(availableParallelism() - 1, 3))

/**
 * The threads that hash passwords, each started when it is first needed. They have a lower priority than the event loop, which
 * the threads of libuv cannot have.
 */
export class PasswordThreads {
  readonly #threads: PasswordThread[] = []

  run(job: PasswordJob): Promise<string | boolean> {
    return this.#leastBusy().run(job)
  }

  #leastBusy(): PasswordThread {
    const [idlest] = this.#threads.toSorted((a, b) => a.jobs - b.jobs)
    if (idlest && (idlest.jobs === 0 || this.#threads.length === MAX_PASSWORD_THREADS)) return idlest
    const thread = new PasswordThread(() => this.#threads.splice(this.#threads.indexOf(thread), 1))
    this.#threads.push(thread)
    return thread
  }
}

/** One thread. It does its jobs one after the other, and keeps the process alive only while it has one. */
class PasswordThread {
  // The thread doesn't get the process's own flags, because some of them don't allow a file (--input-type).
  readonly #worker = new Worker(new URL('./password-thread.ts', import.meta.url), { execArgv: [] })
  readonly #open = new Map<number, PromiseWithResolvers<string | boolean>>()
  #lastId = 0

  /** `ended` is called when the thread can do no more jobs. */
  constructor(ended: () => void) {
    this.#worker.unref()
    this.#worker.on('message', ({ id, answer }) => this.#settle(id, answer))
    // A thread ends, for example, when it runs out of memory. Without a listener the error would end the process.
    let failure = new Error('a password hashing thread has exited')
    this.#worker.on('error', (error: Error) => {
      failure = error
    })
    this.#worker.on('exit', () => {
      ended()
      for (const id of this.#open.keys()) this.#settle(id, { error: failure })
    })
  }

  get jobs() {
    return this.#open.size
  }

  run(job: PasswordJob): Promise<string | boolean> {
    const id = ++this.#lastId
    const settled = Promise.withResolvers<string | boolean>()
    this.#open.set(id, settled)
    this.#worker.ref()
    this.#worker.postMessage({ id, job })
    return settled.promise
  }

  #settle(id: number, answer: PasswordAnswer) {
    const { resolve, reject } = this.#open.get(id)!
    this.#open.delete(id)
    if (this.#open.size === 0) this.#worker.unref()
    if ('error' in answer) reject(answer.error)
    else resolve(answer.result)
  }
}
