import cluster, { type Worker } from 'node:cluster'
import { type Failure, StartError } from '../exit-codes.ts'
import type { PrimaryHandlers, WorkerHandlers } from './protocol.ts'
import { RpcChannel } from './rpc.ts'

/** One worker process, as the primary sees it, from the fork to its end. */
export class WorkerProcess {
  readonly #worker: Worker
  readonly channel: RpcChannel<WorkerHandlers, PrimaryHandlers>
  /** Resolves with the port. Rejects with StartError if the process ends before it listens. */
  readonly listens: Promise<number>
  /** Its exit code (1 for a signal), and the reason. */
  readonly ended: Promise<Failure>
  isListening = false

  constructor(handlers: Omit<PrimaryHandlers, 'failed'>) {
    const listens = Promise.withResolvers<number>()
    const ended = Promise.withResolvers<Failure>()
    this.listens = listens.promise
    this.ended = ended.promise
    let reported: Failure | undefined
    this.#worker = cluster.fork()
    this.channel = new RpcChannel(this.#worker, {
      ...handlers,
      failed: async failure => {
        reported = failure
      },
    })
    this.#worker.once('listening', ({ port }) => {
      this.isListening = true
      listens.resolve(port)
    })
    const end = (end: Failure) => {
      this.isListening = false
      const atStart = { ...end, message: `assay: a worker exited while it started (${end.message})` }
      listens.reject(new StartError(reported ?? atStart))
      ended.resolve(reported ?? end)
    }
    this.#worker.once('exit', (code, signal) =>
      end({ code: signal ? 1 : code, message: signal ?? `exit code ${code}` }),
    )
    // If the process couldn't be created there is no exit event. Any other error is followed by one.
    this.#worker.on('error', ({ name }) => this.pid === undefined && end({ code: 1, message: name }))
    // Only the start waits for `listens`. A later rejection needs no handler of its own, because `ended` reports the same
    // failure.
    this.listens.catch(() => {})
  }

  get pid() {
    return this.#worker.process.pid
  }

  kill() {
    this.#worker.process.kill('SIGKILL')
  }
}
