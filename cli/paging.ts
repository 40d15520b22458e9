import type { Answer } from './client.ts'
import { CommandError, EXIT, type Invocation, type Option } from './command.ts'
import { Progress } from './progress.ts'

export const PAGING: Record<string, Option> = {
  limit: { value: 'N', about: 'at most so many (50)' },
  all: { about: 'all, however many' },
}

/** Rows of a page, or with `--all` of every page. `member`: the page's list. */
export async function pages(
  { api, options, terminal }: Pick<Invocation, 'api' | 'options' | 'terminal'>,
  path: string,
  member: string,
  query: { readonly [name: string]: string | boolean | undefined } = {},
): Promise<Answer[]> {
  const most = options.all ? Number.POSITIVE_INFINITY : wholeNumber(options.limit ?? '50')
  const found: Answer[] = []
  const progress = new Progress(terminal, member)
  for (let cursor: string | undefined; ; ) {
    const limit = String(Math.min(100, most - found.length))
    const page = await api.get(path, { query: { ...query, limit, cursor } })
    found.push(...page[member])
    progress.at(found.length)
    cursor = page.next_cursor
    if (cursor === undefined || found.length >= most) break
  }
  progress.end()
  return found
}

function wholeNumber(text: string | boolean): number {
  if (!/^[1-9]\d{0,8}$/.test(String(text)))
    throw new CommandError(EXIT.usage, '--limit: a whole number from 1')
  return Number(text)
}
