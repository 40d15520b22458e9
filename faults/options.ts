import { type ParseArgsOptionsConfig, parseArgs } from 'node:util'
import { EXIT } from '../cli/errors.ts'

/** The options of a program of this repository. A wrong one ends the process with one line and the exit code of usage errors. */
export function parseOptions<const Options extends ParseArgsOptionsConfig>(
  program: string,
  options: Options,
) {
  try {
    return parseArgs({ options })
  } catch (error) {
    const [problem] = (error as Error).message.split('. ')
    process.stderr.write(`${program}: ${problem}; --help lists the options\n`)
    process.exit(EXIT.usage)
  }
}
