import { Option } from 'commander'
import { api, type Json, type Query } from './client.ts'
import { parseWholeNumber } from './options.ts'
import { Progress } from './progress.ts'

const MAX_PAGE_ROWS = 100

export const LIMIT = new Option('--limit <n>', 'show at most this many')
  .argParser(parseWholeNumber(1, 50))
  .default(50)
export const ALL = new Option('--all', 'show all')

export interface PagingOptions {
  limit: number
  all?: true
}

/** The first rows of a list, up to `--limit`, or all of them. `member`: the list's name in a page. */
export async function readPages(
  path: string,
  member: string,
  { limit, all }: PagingOptions,
  query: Query = {},
): Promise<Json[]> {
  const max = all ? Number.POSITIVE_INFINITY : limit
  const found: Json[] = []
  const progress = new Progress(member)
  for (let cursor: string | undefined; ; ) {
    const rows = String(Math.min(MAX_PAGE_ROWS, max - found.length))
    const page = await api.get(path, { query: { ...query, limit: rows, cursor } })
    found.push(...page[member])
    progress.report(found.length)
    cursor = page.next_cursor
    if (cursor === undefined || found.length >= max) break
  }
  progress.end()
  return found
}
