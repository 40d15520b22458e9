import { terminal } from './terminal.ts'

const REPORT_INTERVAL_MS = 2_000

/** Shows the count and the rate of something that takes longer than two seconds, on an interactive terminal. */
export class Progress {
  readonly #what: string
  readonly #startedAt = performance.now()
  #reportedAt = this.#startedAt

  constructor(what: string) {
    this.#what = what
  }

  report(count: number) {
    const now = performance.now()
    if (!terminal.interactive || now - this.#reportedAt < REPORT_INTERVAL_MS) return
    this.#reportedAt = now
    const rate = Math.round((count / (now - this.#startedAt)) * 1_000)
    terminal.tell(`\r${count} ${this.#what}, ${rate} a second `)
  }

  end() {
    if (this.#reportedAt !== this.#startedAt) terminal.tell('\n')
  }
}
