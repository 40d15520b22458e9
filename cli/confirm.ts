import { CommandError, EXIT } from './errors.ts'
import { printable } from './output.ts'
import { terminal } from './terminal.ts'

export interface YesOptions {
  yes?: true
}

/** Asks for `word` before an act that can't be undone. Throws CommandError unless it is typed, or `--yes` was given. */
export async function confirm(
  { yes }: YesOptions,
  what: string,
  word: string,
  wordName = "the customer's id",
): Promise<void> {
  if (yes) return
  if (!terminal.interactive)
    throw new CommandError(EXIT.usage, `${what}: nobody is there to confirm it; add --yes if it is meant`)
  const typed = await terminal.ask(`${printable(what)}. It can't be undone. Type ${wordName} to confirm: `)
  if (typed.trim() !== word) throw new CommandError(EXIT.refused, `that is not ${wordName}; nothing was done`)
}
