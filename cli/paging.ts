import { Option } from 'commander'
import { api, type Json, type Query } from './client.ts'
import { parseWholeNumber } from './options.ts'
import { Progress } from './progress.ts'
import { terminal } from './terminal.ts'

const MAX_PAGE_ROWS = 100

export const LIMIT = new Option('--limit <n>', 'show at most this many')
  .argParser(parseWholeNumber(1, 50))
  .default(50)
export const ALL = new Option('--all', 'show all')

export interface PagingOptions {
  limit: number
  all?: true
}

/** The first rows of a list, up to `--limit`, or all of them. Says if there are more. `member`: the list's name in a page. */
export async function readPages(
  path: string,
  member: string,
  { limit, all }: PagingOptions,
  query: Query = {},
): Promise<Json[]> {
  const max = all ? Number.POSITIVE_INFINITY : limit
  const found: Json[] = []
  const progress = new Progress(member)
  let cursor: string | undefined
  do {
    const rows = String(Math.min(MAX_PAGE_ROWS, max - found.length))
    const page = await api.get(path, { query: { ...query, limit: rows, cursor } })
    found.push(...page[member])
    progress.report(found.length)
    cursor = page.next_cursor
  } while (cursor !== undefined && found.length < max)
  progress.end()
  if (cursor !== undefined) terminal.tell(`assay: there are more ${member}; use --all to show all\n`)
  return found
}
