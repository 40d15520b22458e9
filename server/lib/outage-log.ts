import type { Log } from './logger.ts'

/** Logs when attempts begin to fail and when they succeed again, so that an outage isn't logged at every attempt. */
export class OutageLog {
  readonly #log: Log
  readonly #messages: Record<'failing' | 'recovered', string>
  #failing = false

  constructor(log: Log, messages: Record<'failing' | 'recovered', string>) {
    this.#log = log
    this.#messages = messages
  }

  /** `failure`: why the attempt failed, or undefined if it succeeded. */
  note(failure: unknown) {
    const failing = failure !== undefined
    if (failing === this.#failing) return
    this.#failing = failing
    if (failing) this.#log.error({ err: failure }, this.#messages.failing)
    else this.#log.info(this.#messages.recovered)
  }
}
