import type { Worker } from 'node:cluster'
import { Unavailable } from '../lib/errors.ts'

/** The methods of one side. Each takes one argument. */
export type RpcHandlers<Methods> = { [Method in keyof Methods]: (argument: never) => Promise<unknown> }

interface Message {
  id: number
  /** Only in a call. */
  method?: string
  argument?: unknown
  /** Only in a reply. */
  result?: unknown
  /** The name of the error, instead of a result. */
  error?: string
}

/**
 * Calls between the primary and one worker, in both directions. Every call has a deadline, because the other side may die
 * or hang at any moment.
 */
export class RpcChannel<Theirs extends RpcHandlers<Theirs>, Ours extends RpcHandlers<Ours>> {
  readonly #worker: Worker
  readonly #handlers: Ours
  readonly #pending = new Map<number, PromiseWithResolvers<unknown>>()
  #lastId = 0

  /** `worker` is the other side: in a worker, `cluster.worker` sends to the primary. */
  constructor(worker: Worker, handlers: Ours) {
    this.#worker = worker
    this.#handlers = handlers
    worker.on('message', (message: Message) =>
      message.method === undefined ? this.#settle(message) : void this.#reply(message),
    )
  }

  /** Throws Unavailable if no reply comes within `deadlineMs`, or the other side throws. */
  async call<Method extends keyof Theirs & string>(
    method: Method,
    argument: Parameters<Theirs[Method]>[0],
    deadlineMs: number,
  ): Promise<Awaited<ReturnType<Theirs[Method]>>> {
    const id = ++this.#lastId
    const pending = Promise.withResolvers<unknown>()
    const giveUp = () => pending.reject(new Unavailable(`workers: no answer to ${method}`, 'workers'))
    const timer = setTimeout(giveUp, deadlineMs)
    this.#pending.set(id, pending)
    this.#send({ id, method, argument }, giveUp)
    try {
      return (await pending.promise) as Awaited<ReturnType<Theirs[Method]>>
    } finally {
      clearTimeout(timer)
      this.#pending.delete(id)
    }
  }

  async #reply({ id, method, argument }: Message) {
    const handler = this.#handlers[method as keyof Ours]
    try {
      this.#send({ id, result: await handler(argument as never) })
    } catch (error) {
      this.#send({ id, error: (error as Error).name })
    }
  }

  #settle({ id, result, error }: Message) {
    if (error !== undefined)
      this.#pending.get(id)?.reject(new Unavailable(`workers: the call failed with ${error}`, 'workers'))
    else this.#pending.get(id)?.resolve(result)
  }

  /** Without the callback, sending to a process that has just died would emit an error and end this process. */
  #send(message: Message, onError = () => {}) {
    this.#worker.send(message, error => error && onError())
  }
}
