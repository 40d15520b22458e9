import { api, type Json, type Query } from '../client.ts'
import { AssayCommand } from '../command.ts'
import { CommandError, EXIT } from '../errors.ts'
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
}

export const audit = new AssayCommand('audit')
  .description('Show what was done, when and by whom, newest first.')
  .option('--customer <customer>', 'only events of this customer')
  .option('--operator <name>', 'only events of this operator')
  .option('--type <type>', 'only events of this type, for example session.revoked')
  .option('--from <time>', 'only events from this time on: 2026-01-31T12:00:00Z')
  .option('--to <time>', 'only events before this time')
  .option('--export', 'print all as lines of JSON')
  .addOption(LIMIT)
  .addOption(ALL)
  .example('audit --customer k5m2q7xw3bfz6tha --type session.revoked')
  .show(async ({ customer, operator, type, from, to, export: asLines, ...paging }: AuditOptions) => {
    const query = { customer, operator, type, from, to }
    if (asLines) return exportEvents(query)
    const events = await readPages('/admin/audit', 'events', paging, query)
    const cells = (one: Json) => [one.at, one.type, one.actor, one.customer_id, one.subject, one.ip]
    return showTable(events, ['at', 'type', 'actor', 'customer', 'subject', 'ip'], cells)
  })

/** A day: an export of a large audit takes long. */
const EXPORT_TIMEOUT_MS = 86_400_000

async function exportEvents(query: Query): Promise<undefined> {
  const response = await api.send('GET', '/admin/audit/export', { query, timeoutMs: EXPORT_TIMEOUT_MS })
  const progress = new Progress('events')
  let count = 0
  try {
    for await (const text of response.body!.pipeThrough(new TextDecoderStream())) {
      terminal.out(escapeControls(text))
      count += text.split('\n').length - 1
      progress.report(count)
    }
  } catch {
    throw new CommandError(EXIT.unreachable, `the export broke off after ${count} events; it is incomplete`)
  }
  progress.end()
}
