import { type ParseArgsOptionsConfig, parseArgs } from 'node:util'
import { EXIT } from '../cli/errors.ts'

/**
 * Parses the options of a program in this repository. An invalid option ends the process with a one-line message and the exit
 * code for usage errors.
 */
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
