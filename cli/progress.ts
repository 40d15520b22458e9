import type { Terminal } from './command.ts'

/** After this long something is said, and then as often (ms). */
const SHOW_AFTER_MS = 2_000

/** Says how far something is that takes longer than two seconds, to who sits before the terminal. */
export class Progress {
  readonly #terminal: Terminal
  readonly #what: string
  readonly #began = performance.now()
  #said = this.#began

  constructor(terminal: Terminal, what: string) {
    this.#terminal = terminal
    this.#what = what
  }

  at(many: number) {
    const now = performance.now()
    if (!this.#terminal.interactive || now - this.#said < SHOW_AFTER_MS) return
    this.#said = now
    const rate = Math.round((many / (now - this.#began)) * 1_000)
    this.#terminal.tell(`\r${many} ${this.#what}, ${rate} a second `)
  }

  end() {
    if (this.#said !== this.#began) this.#terminal.tell('\n')
  }
}
