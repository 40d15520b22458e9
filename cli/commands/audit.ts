import { Option } from 'commander'
import { api, type Json, type Query } from '../client.ts'
import { AssayCommand } from '../command.ts'
import { CursorFile } from '../cursor-file.ts'
import { CommandError, EXIT } from '../errors.ts'
import { followEvents } from '../follow.ts'
import { escapeControls, showTable } from '../output.ts'
import { ALL, LIMIT, type PagingOptions, readPages } from '../paging.ts'
import { Progress } from '../progress.ts'
import { terminal } from '../terminal.ts'

interface AuditOptions extends PagingOptions {
  customer?: string
  operator?: string
  type?: string
  from?: string
  to?: string
  export?: true
  follow?: true
  after?: string
  cursorFile?: string
  json?: true
}

const FOLLOW = new Option('--follow', 'print events as they arrive, until Ctrl-C').conflicts([
  'export',
  'limit',
  'all',
  'to',
])

export const audit = new AssayCommand('audit')
  .description('Show what was done, when and by whom, newest first.')
  .option('--customer <customer>', 'only events of this customer')
  .option('--operator <name>', 'only events of this operator (not with --customer)')
  .option('--type <type>', 'only events of this type, like session.revoked')
  .option('--from <time>', 'only events since this time: 2026-01-31T12:00:00Z')
  .option('--to <time>', 'only events before this time')
  .option('--export', 'print all events as JSON lines, in commit order')
  .addOption(FOLLOW)
  .option('--after <cursor>', 'with --export or --follow: start after this (0: all)')
  .option('--cursor-file <file>', 'with --follow: resume from this file, and update it')
  .addOption(LIMIT)
  .addOption(ALL)
  .example(
    'audit --customer k5m2q7xw3bfz6tha --type session.revoked',
    'audit --follow --json --cursor-file audit.cursor',
  )
  .show(async (options: AuditOptions) => {
    const { customer, operator, type, from, to, after, cursorFile, json = false, ...paging } = options
    const query = { customer, operator, type, from, to }
    if (cursorFile !== undefined && !paging.follow)
      throw new CommandError(EXIT.usage, '--cursor-file needs --follow')
    if (paging.follow)
      return followEvents({
        query,
        after,
        cursorFile: cursorFile === undefined ? undefined : new CursorFile(cursorFile),
        json,
      })
    if (paging.export) return exportEvents(query, after ?? '0')
    if (after !== undefined) throw new CommandError(EXIT.usage, '--after needs --export or --follow')
    const events = await readPages('/admin/audit', 'events', paging, query)
    const cells = (one: Json) => [one.at, one.type, one.actor, one.customer_id, one.subject, one.ip]
    return showTable(events, ['at', 'type', 'actor', 'customer', 'subject', 'ip'], cells)
  })

/** Prints a page at a time, so what is printed ends where the next page begins. */
async function exportEvents(query: Query, from: string): Promise<undefined> {
  const progress = new Progress('events')
  let count = 0
  for (let after = from, more = true; more; ) {
    const page = await readOrder(query, after)
    if (page.expired)
      terminal.tell(`assay: skipped ${page.expired} events that were older than AUDIT_RETENTION\n`)
    for (const event of page.events) terminal.out(`${escapeControls(JSON.stringify(event))}\n`)
    count += page.events.length
    progress.report(count)
    ;({ next: after, more } = page)
    if (!more)
      terminal.tell(
        `assay: ${count} events; complete until ${page.complete_until}; continue with --after ${after}\n`,
      )
  }
  progress.end()
}

const readOrder = (query: Query, after: string): Promise<Json> =>
  api.get('/admin/audit', { query: { ...query, after, limit: '1000' } }).catch(error => {
    const { code, message } = error as CommandError
    throw new CommandError(code, `${message}; the export is incomplete; continue it with --after ${after}`)
  })
