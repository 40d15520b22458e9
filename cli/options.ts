import { InvalidArgumentError, Option } from 'commander'

/** Options that several commands have. */

export const WAIT = new Option('--wait', 'wait until every replica has applied it')

export interface WaitOptions {
  wait?: true
}

/** `--wait` as a query of the API. */
export const toWaitQuery = ({ wait }: WaitOptions) => ({ wait: wait && 'all' })

export const YES = new Option('--yes', 'do not ask for confirmation')

export const PASSWORD_FILE = new Option(
  '--password-file <file>',
  'file with the password, or - for standard input',
)

export const parseList = (text: string): string[] => text.split(',')

/** Creates a parser of whole numbers from `min` on. */
export function parseWholeNumber(min: number, example: number) {
  return (text: string): number => {
    if (!/^\d{1,9}$/.test(text) || Number(text) < min)
      throw new InvalidArgumentError(`Use a whole number, at least ${min}, for example ${example}`)
    return Number(text)
  }
}
