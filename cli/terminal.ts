import { createInterface } from 'node:readline/promises'
import { Writable } from 'node:stream'
import { text } from 'node:stream/consumers'
import { EXIT, type Terminal } from './command.ts'

/** The process's own. */
export const terminal: Terminal = {
  interactive: process.stdin.isTTY === true && process.stderr.isTTY === true,
  out: written => void process.stdout.write(written),
  tell: written => void process.stderr.write(written),
  ask,
  input: async () => (await text(process.stdin)).replace(/\r?\n$/, ''),
}

async function ask(question: string, hidden = false): Promise<string> {
  process.stderr.write(question)
  const nowhere = new Writable({ write: (_, __, done) => done() })
  const lines = createInterface({
    input: process.stdin,
    output: hidden ? nowhere : process.stderr,
    terminal: true,
  })
  try {
    return await lines.question('')
  } finally {
    lines.close()
    if (hidden) process.stderr.write('\n')
  }
}

// Whoever reads only the beginning (`| head`) has what it wants.
process.stdout.on('error', ({ code }: NodeJS.ErrnoException) => {
  if (code === 'EPIPE') process.exit(0)
  process.stderr.write(`assay: what was to be printed can't be written (${code})\n`)
  process.exit(EXIT.refused)
})
