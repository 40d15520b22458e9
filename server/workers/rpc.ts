import type { Worker } from 'node:cluster'
import { Unavailable } from '../lib/errors.ts'

/** What one side may be asked: each question brings one value, and is answered with one. */
export type Asked<Questions> = { [Question in keyof Questions]: (of: never) => Promise<unknown> }

interface Message {
  id: number
  /** Of a question. */
  ask?: string
  of?: unknown
  /** Of an answer. */
  answer?: unknown
  /** Instead of an answer: the name of the error. */
  failed?: string
}

/**
 * Questions and answers between the primary and one worker, either way. Every wait has an end: the other side may have
 * died, or hang, at any moment.
 */
export class Link<Theirs extends Asked<Theirs>, Ours extends Asked<Ours>> {
  readonly #worker: Worker
  readonly #ours: Ours
  readonly #open = new Map<number, PromiseWithResolvers<unknown>>()
  #asked = 0

  /** In the worker as in the primary, `worker` stands for the one and reaches the other. */
  constructor(worker: Worker, ours: Ours) {
    this.#worker = worker
    this.#ours = ours
    worker.on('message', (message: Message) =>
      message.ask === undefined ? this.#settle(message) : void this.#answer(message),
    )
  }

  /** Throws Unavailable when no answer comes within `deadline` milliseconds. */
  async ask<Question extends keyof Theirs & string>(
    question: Question,
    of: Parameters<Theirs[Question]>[0],
    deadline: number,
  ): Promise<Awaited<ReturnType<Theirs[Question]>>> {
    const id = ++this.#asked
    const open = Promise.withResolvers<unknown>()
    const giveUp = () => open.reject(new Unavailable(`workers: no answer to ${question}`, 'workers'))
    const late = setTimeout(giveUp, deadline)
    this.#open.set(id, open)
    this.#send({ id, ask: question, of }, giveUp)
    try {
      return (await open.promise) as Awaited<ReturnType<Theirs[Question]>>
    } finally {
      clearTimeout(late)
      this.#open.delete(id)
    }
  }

  async #answer({ id, ask, of }: Message) {
    const answer = this.#ours[ask as keyof Ours]
    try {
      this.#send({ id, answer: await answer(of as never) })
    } catch (error) {
      this.#send({ id, failed: (error as Error).name })
    }
  }

  #settle({ id, answer, failed }: Message) {
    if (failed !== undefined)
      this.#open.get(id)?.reject(new Unavailable(`workers: the answer was ${failed}`, 'workers'))
    else this.#open.get(id)?.resolve(answer)
  }

  /** With a callback, or a message to one who has just died would be an error that ends this process as well. */
  #send(message: Message, onError = () => {}) {
    this.#worker.send(message, error => error && onError())
  }
}
