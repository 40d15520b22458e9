import cluster, { type Worker } from 'node:cluster'
import { type Failure, StartError } from '../exit-codes.ts'
import type { AskedOfPrimary, AskedOfWorker } from './protocol.ts'
import { Link } from './rpc.ts'

/** One process of a worker, as the primary sees it, from the fork to its end. */
export class WorkerProcess {
  readonly #worker: Worker
  readonly link: Link<AskedOfWorker, AskedOfPrimary>
  /** Resolves with the port. Rejects with FailedStart, if it ends before. */
  readonly listens: Promise<number>
  /** Its exit code (1 for a signal), and why. */
  readonly ended: Promise<Failure>
  isListening = false

  constructor(answers: Omit<AskedOfPrimary, 'failed'>) {
    const listens = Promise.withResolvers<number>()
    const ended = Promise.withResolvers<Failure>()
    this.listens = listens.promise
    this.ended = ended.promise
    let told: Failure | undefined
    this.#worker = cluster.fork()
    this.link = new Link(this.#worker, {
      ...answers,
      failed: async failure => {
        told = failure
      },
    })
    this.#worker.once('listening', ({ port }) => {
      this.isListening = true
      listens.resolve(port)
    })
    const end = (end: Failure) => {
      this.isListening = false
      const atStart = { ...end, message: `assay: a worker ended while it started (${end.message})` }
      listens.reject(new StartError(told ?? atStart))
      ended.resolve(told ?? end)
    }
    this.#worker.once('exit', (code, signal) =>
      end({ code: signal ? 1 : code, message: signal ?? `exit code ${code}` }),
    )
    // Where no process could be made there is none to exit. Any other error of one is followed by its end.
    this.#worker.on('error', ({ name }) => this.pid === undefined && end({ code: 1, message: name }))
    // Whoever waits for it to listen is told; for all others there is `ended`.
    this.listens.catch(() => {})
  }

  get pid() {
    return this.#worker.process.pid
  }

  kill() {
    this.#worker.process.kill('SIGKILL')
  }
}
