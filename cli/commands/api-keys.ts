import type { Answer } from '../client.ts'
import { type Command, CommandError, EXIT } from '../command.ts'
import { listing, table } from '../output.ts'
import { WAIT, waiting } from '../waiting.ts'
import { at } from './customers.ts'

export const keys: Command[] = [
  {
    name: 'keys list',
    about: "A customer's API keys, newest first",
    args: ['CUSTOMER'],
    example: 'keys list k5m2q7xw3bfz6tha',
    async run({ api, args: [id] }) {
      const { keys } = await api.get(at(id!, '/keys'))
      const row = (key: Answer) => [key.id, key.name, key.scopes.join(' '), key.expires_at, key.last_used_at]
      return { json: keys, text: table(['id', 'name', 'scopes', 'expires', 'last used'], keys.map(row)) }
    },
  },
  {
    name: 'keys create',
    about: 'Give a customer an API key, which is shown once',
    args: ['CUSTOMER'],
    options: {
      name: { value: 'TEXT', about: 'for people' },
      scopes: { value: 'A,B', about: 'what its tokens may have (any)' },
      'expires-in': { value: 'SECONDS', about: 'how long it may be used (for ever)' },
    },
    example: 'keys create k5m2q7xw3bfz6tha --name ci --scopes read,write',
    async run({ api, args: [id], options }) {
      const scopes = typeof options.scopes === 'string' ? options.scopes.split(',') : undefined
      const body = { name: options.name, scopes, expires_in: seconds(options['expires-in']) }
      const key = await api.post(at(id!, '/keys'), { body })
      return {
        json: key,
        text: listing({ id: key.id, name: key.name, scopes: key.scopes.join(' '), 'api key': key.api_key }),
      }
    },
  },
  {
    name: 'keys delete',
    about: 'End an API key; what it issued lives on',
    args: ['CUSTOMER', 'KEY'],
    options: WAIT,
    example: 'keys delete k5m2q7xw3bfz6tha k5m2q7xw3bfz6thapr4wd2nqx7m3vzkc',
    async run({ api, args: [id, key], options }) {
      await api.delete(at(id!, `/keys/${encodeURIComponent(key!)}`), { query: waiting(options) })
      return { json: { id: key }, text: 'done' }
    },
  },
]

function seconds(text: string | boolean | undefined): number | undefined {
  if (text === undefined) return undefined
  if (!/^[1-9]\d{0,9}$/.test(String(text)))
    throw new CommandError(EXIT.usage, '--expires-in: whole seconds, for example 86400')
  return Number(text)
}
