import { CommandError, EXIT, type Invocation, type Option } from './command.ts'

export const YES: Record<string, Option> = { yes: { about: 'do not ask' } }

/** What can't be taken back is asked for again, by a word of its own. Throws CommandError when it isn't meant. */
export async function confirm(
  { options, terminal }: Pick<Invocation, 'options' | 'terminal'>,
  what: string,
  word: string,
  called = "the customer's id",
): Promise<void> {
  if (options.yes) return
  if (!terminal.interactive)
    throw new CommandError(EXIT.usage, `${what}: nobody is there to confirm it; add --yes if it is meant`)
  const typed = await terminal.ask(`${what}. It can't be undone. Type ${called} to confirm: `)
  if (typed.trim() !== word) throw new CommandError(EXIT.refused, `that is not ${called}; nothing was done`)
}
