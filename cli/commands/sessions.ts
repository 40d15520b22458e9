import type { Answer } from '../client.ts'
import type { Command } from '../command.ts'
import { DONE, table } from '../output.ts'
import { PAGING, pages } from '../paging.ts'
import { WAIT, waiting } from '../waiting.ts'
import { at } from './customers.ts'

export const sessions: Command[] = [
  {
    name: 'sessions list',
    about: "A customer's live sessions, newest first",
    args: ['CUSTOMER'],
    options: { subject: { value: 'SUBJECT', about: 'only of this user' }, ...PAGING },
    example: 'sessions list k5m2q7xw3bfz6tha --subject user-42',
    async run(invocation) {
      const { args, options } = invocation
      const found = await pages(invocation, at(args[0]!, '/sessions'), 'sessions', {
        subject: options.subject,
      })
      const row = (one: Answer) => [one.id, one.subject, one.scope, one.created_at, one.expires_at, one.ip]
      return {
        json: found,
        text: table(['id', 'subject', 'scope', 'began', 'expires', 'ip'], found.map(row)),
      }
    },
  },
  {
    name: 'sessions end',
    about: 'End a session and all its tokens',
    args: ['CUSTOMER', 'SESSION'],
    options: WAIT,
    example: 'sessions end k5m2q7xw3bfz6tha sd4h7t2vnb3q6wkexm5yz2ra --wait',
    async run({ api, args: [id, session], options }) {
      await api.delete(at(id!, `/sessions/${encodeURIComponent(session!)}`), { query: waiting(options) })
      return DONE
    },
  },
]
