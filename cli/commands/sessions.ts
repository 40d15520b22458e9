import { api, type Json, pathSegment } from '../client.ts'
import { AssayCommand } from '../command.ts'
import { customerPath } from '../customer.ts'
import { toWaitQuery, WAIT, type WaitOptions } from '../options.ts'
import { DONE, showTable } from '../output.ts'
import { ALL, LIMIT, type PagingOptions, readPages } from '../paging.ts'

export const sessions = new AssayCommand('sessions').description("List and end a customer's sessions.")

sessions
  .command('list <customer>')
  .description("List a customer's live sessions, newest first.")
  .option('--subject <subject>', 'only those of this user')
  .addOption(LIMIT)
  .addOption(ALL)
  .example('sessions list k5m2q7xw3bfz6tha --subject user-42')
  .show(async (id: string, { subject, ...paging }: PagingOptions & { subject?: string }) => {
    const found = await readPages(customerPath(id, '/sessions'), 'sessions', paging, { subject })
    const cells = (one: Json) => [one.id, one.subject, one.scope, one.created_at, one.expires_at, one.ip]
    return showTable(found, ['id', 'subject', 'scope', 'began', 'expires', 'ip'], cells)
  })

sessions
  .command('end <customer> <session>')
  .description('End a session and all its tokens.')
  .addOption(WAIT)
  .example('sessions end k5m2q7xw3bfz6tha sd4h7t2vnb3q6wkexm5yz2ra --wait')
  .show(async (id: string, session: string, options: WaitOptions) => {
    const query = toWaitQuery(options)
    await api.delete(customerPath(id, `/sessions/${pathSegment(session)}`), { query })
    return DONE
  })
