import { CommandError, EXIT, type Invocation, type Option } from './command.ts'

export const YES: Record<string, Option> = { yes: { about: 'do not ask' } }

/** What can't be taken back is asked for again, by the customer's id. Throws CommandError when it isn't meant. */
export async function confirm(
  { options, terminal }: Pick<Invocation, 'options' | 'terminal'>,
  what: string,
  id: string,
): Promise<void> {
  if (options.yes) return
  if (!terminal.interactive)
    throw new CommandError(EXIT.usage, `${what}: nobody is there to confirm it; add --yes if it is meant`)
  const typed = await terminal.ask(`${what}. It can't be undone. Type the customer's id to confirm: `)
  if (typed.trim() !== id) throw new CommandError(EXIT.refused, 'that is not its id; nothing was done')
}
