/** Exit codes: those of sysexits.h where it has one. Documented in docs/cli.md. */
export const EXIT = {
  refused: 1,
  usage: 64,
  unreachable: 69,
  tryAgain: 75,
  notAssay: 76,
  notAllowed: 77,
  settings: 78,
  interrupted: 130,
} as const

/** An error for the operator: one sentence that says what to do, and the exit code. */
export class CommandError extends Error {
  readonly code: number

  constructor(code: number, message: string) {
    super(message)
    this.code = code
  }
}
