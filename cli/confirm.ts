import { CommandError, EXIT } from './errors.ts'
import { printable } from './output.ts'
import { terminal } from './terminal.ts'

export interface YesOptions {
  yes?: true
}

/**
 * Asks for `word` before an act that can't be undone: `act` completes the sentence "This will ...". Throws CommandError unless
 * the word is typed, or `--yes` was given.
 */
export async function confirm(
  { yes }: YesOptions,
  act: string,
  word: string,
  wordName = "the customer's id",
): Promise<void> {
  if (yes) return
  if (!terminal.interactive) throw new CommandError(EXIT.usage, `this would ${act}; add --yes to confirm`)
  const typed = await terminal.ask(
    `This will ${printable(act)}. It can't be undone.\nType ${wordName} to confirm: `,
  )
  if (typed.trim() !== word)
    throw new CommandError(EXIT.refused, `that is not ${wordName}; nothing was changed`)
}
