#!/usr/bin/env -S node --disable-sigusr1
// First: it handles signals while the other modules are loaded.
import '../server/shutdown.ts'
import { CommandError, EXIT } from './errors.ts'
import { printable } from './output.ts'
import { FIRST_HELP, program, resolveHelp } from './program.ts'
import { terminal } from './terminal.ts'

const words = process.argv.slice(2)
if (words.length === 0) terminal.out(FIRST_HELP)
else await run()

function run() {
  return program.parseAsync(resolveHelp(words), { from: 'user' }).catch(error => {
    // Ctrl-C or Ctrl-D at a question.
    if (error?.code === 'ABORT_ERR') process.exit(EXIT.interrupted)
    if (!(error instanceof CommandError)) throw error
    terminal.tell(`assay: ${printable(error.message)}\n`)
    process.exitCode = error.code
  })
}
