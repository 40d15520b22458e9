import type { Answer } from '../client.ts'
import { type Command, CommandError, EXIT, type Invocation } from '../command.ts'
import { table } from '../output.ts'
import { PAGING, pages } from '../paging.ts'
import { Progress } from '../progress.ts'

export const audit: Command[] = [
  {
    name: 'audit',
    about: 'What was done, when and by whom, newest first',
    options: {
      customer: { value: 'CUSTOMER', about: 'only of this customer' },
      operator: { value: 'NAME', about: 'only what this operator did' },
      type: { value: 'TYPE', about: 'only of this type, for example session.revoked' },
      from: { value: 'TIME', about: 'at this time or later: 2026-01-31T12:00:00Z' },
      to: { value: 'TIME', about: 'before this time' },
      export: { about: 'all, as a line of JSON for each event' },
      ...PAGING,
    },
    example: 'audit --customer k5m2q7xw3bfz6tha --type session.revoked',
    async run(invocation) {
      const { customer, operator, type, from, to, export: whole } = invocation.options
      const query = { customer, operator, type, from, to }
      if (whole) return exported(invocation, query)
      const events = await pages(invocation, '/admin/audit', 'events', query)
      const row = (one: Answer) => [one.at, one.type, one.actor, one.customer_id, one.subject, one.ip]
      return {
        json: events,
        text: table(['at', 'type', 'actor', 'customer', 'subject', 'ip'], events.map(row)),
      }
    },
  },
]

/** A day (ms): it lasts as long as it lasts. */
const EXPORT_TIMEOUT_MS = 86_400_000

async function exported(
  { api, terminal }: Invocation,
  query: { readonly [name: string]: string | boolean | undefined },
): Promise<undefined> {
  const response = await api.send('GET', '/admin/audit/export', { query, patience: EXPORT_TIMEOUT_MS })
  const progress = new Progress(terminal, 'events')
  let lines = 0
  try {
    for await (const piece of response.body!.pipeThrough(new TextDecoderStream())) {
      terminal.out(piece)
      lines += piece.split('\n').length - 1
      progress.at(lines)
    }
  } catch {
    throw new CommandError(EXIT.unreachable, `the export broke off after ${lines} events; it is not whole`)
  }
  progress.end()
}
