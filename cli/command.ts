import type { Api } from './client.ts'

export interface Option {
  /** What stands for its value in help; one without takes none. */
  value?: string
  about: string
}

export interface Invocation {
  /** As many as the command has. */
  args: string[]
  options: { readonly [name: string]: string | boolean | undefined }
  api: Api
  terminal: Terminal
}

/** What a command says of itself, and does. Help, docs/cli.md and completion are made from it. */
export interface Command {
  /** Its words: `customers list`. */
  name: string
  about: string
  /** All are needed. */
  args?: readonly string[]
  options?: Readonly<Record<string, Option>>
  /** What follows `assay`. */
  example: string
  /** Answers what to print; undefined: it has printed, or there is nothing to say. */
  run(invocation: Invocation): Promise<Shown | undefined>
}

/** For people, and for scripts (`--json`). */
export interface Shown {
  text: string
  json: unknown
}

/** Where a command asks and is answered, and what it prints. */
export interface Terminal {
  /** Of a terminal, with somebody before it. */
  interactive: boolean
  out(text: string): void
  /** Beside what is printed: progress, questions, warnings. */
  tell(text: string): void
  /** A line that somebody types. `hidden`: it isn't shown. */
  ask(question: string, hidden?: boolean): Promise<string>
  /** All of what is piped in, without its last line end. */
  input(): Promise<string>
}

/** sysexits.h, where it has one. Documented in docs/cli.md. */
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

/** One sentence that says what to do. */
export class CommandError extends Error {
  readonly code: number

  constructor(code: number, message: string) {
    super(message)
    this.code = code
  }
}
