import type { Command } from '../command.ts'
import { confirm, YES } from '../confirm.ts'
import { DONE } from '../output.ts'
import { WAIT, waiting } from '../waiting.ts'
import { at } from './customers.ts'

export const revoke: Command[] = [
  {
    name: 'revoke token',
    about: 'End one access token, or the session of a refresh token; it is read from what is piped in',
    options: WAIT,
    example: 'revoke token < token.txt',
    async run({ api, options, terminal }) {
      const token = await tokenFrom(terminal)
      await api.post('/admin/revoke', { body: { token }, query: waiting(options) })
      return DONE
    },
  },
  {
    name: 'revoke subject',
    about: "End all tokens and sessions of one of a customer's users",
    args: ['CUSTOMER', 'SUBJECT'],
    options: WAIT,
    example: 'revoke subject k5m2q7xw3bfz6tha user-42 --wait',
    async run({ api, args: [id, subject], options }) {
      await api.post(at(id!, `/subjects/${encodeURIComponent(subject!)}/revoke`), { query: waiting(options) })
      return DONE
    },
  },
  {
    name: 'revoke customer',
    about: "End all of a customer's tokens and sessions",
    args: ['CUSTOMER'],
    options: { ...WAIT, ...YES },
    example: 'revoke customer k5m2q7xw3bfz6tha',
    async run(invocation) {
      const { api, args, options } = invocation
      const id = args[0]!
      const { email } = await api.get(at(id))
      await confirm(invocation, `Ends every token and session of ${email} and of its users`, id)
      await api.post(at(id, '/revoke'), { query: waiting(options) })
      return DONE
    },
  },
  {
    name: 'revoke everyone',
    about: 'End all tokens and sessions of all customers; their API keys, passwords and secrets stay',
    options: { ...WAIT, ...YES },
    example: 'revoke everyone --wait',
    async run(invocation) {
      const { api, options } = invocation
      await confirm(
        invocation,
        `Ends every token and session of every customer at ${api.url}`,
        'everyone',
        'the word everyone',
      )
      await api.post('/admin/revoke', { body: { everyone: true }, query: waiting(options) })
      return DONE
    },
  },
]
/** Never from the command line, which other users of the machine can read. */
export const tokenFrom = async (terminal: {
  interactive: boolean
  input(): Promise<string>
  ask(q: string, hidden?: boolean): Promise<string>
}) => (terminal.interactive ? await terminal.ask('Token: ', true) : await terminal.input()).trim()
