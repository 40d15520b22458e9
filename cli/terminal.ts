import { createInterface } from 'node:readline/promises'
import { Writable } from 'node:stream'
import { text } from 'node:stream/consumers'
import { EXIT } from './errors.ts'

export const terminal = {
  /** True if a user can be asked a question. */
  interactive: process.stdin.isTTY === true && process.stderr.isTTY === true,
  /** Columns. A program that reads a pipe wants a line for each row, however long. */
  width: (process.stdout.isTTY && process.stdout.columns) || Number.POSITIVE_INFINITY,
  out: (text: string) => void process.stdout.write(text),
  /** Resolves once the text is written. */
  flush: (text: string) => new Promise<void>(resolve => process.stdout.write(text, () => resolve())),
  /** To standard error: progress, questions and warnings. */
  tell: (text: string) => void process.stderr.write(text),
  ask,
  /** All of standard input, without its last line end. */
  input: async () => (await text(process.stdin)).replace(/\r?\n$/, ''),
}

/** Reads a line from the user. `hidden`: it isn't shown. */
async function ask(question: string, hidden = false): Promise<string> {
  if (hidden) process.stderr.write(question)
  const nowhere = new Writable({ write: (_, __, done) => done() })
  const lines = createInterface({
    input: process.stdin,
    output: hidden ? nowhere : process.stderr,
    terminal: true,
  })
  try {
    // Not written before: readline clears the line.
    return await lines.question(hidden ? '' : question)
  } finally {
    lines.close()
    if (hidden) process.stderr.write('\n')
  }
}

/** Reads a token: never from the command line, which other users of the machine can read. */
export const readToken = async () =>
  (terminal.interactive ? await terminal.ask('Token: ', true) : await terminal.input()).trim()

// A reader that stops early (`| head`) needs no more output.
process.stdout.on('error', ({ code }: NodeJS.ErrnoException) => {
  if (code === 'EPIPE') process.exit(0)
  process.stderr.write(`assay: standard output can't be written (${code})\n`)
  process.exit(EXIT.refused)
})
