import type { Answer } from '../client.ts'
import { type Command, CommandError, EXIT, type Invocation } from '../command.ts'
import { toSeconds } from '../duration.ts'
import { at, shown } from './customers.ts'

/** Each as the admin API names it, with - for _. */
const MEMBERS = {
  scopes: { value: 'A,B', about: 'the only ones its tokens may carry, or default: any' },
  'access-token-ttl': { value: 'TIME', about: 'of an access token, unless asked: 10m, 12h, 1d; or default' },
  'max-access-token-ttl': { value: 'TIME', about: 'the most that may be asked' },
  'refresh-token-ttl': { value: 'TIME', about: 'how long a session may lie idle' },
  'session-max-ttl': {
    value: 'TIME',
    about: 'how long a session that begins from now on lasts, whatever is refreshed',
  },
  'refresh-policy': { value: 'WORD', about: 'until_confirmed, grace_only, strict or default' },
  'key-max-age': { value: 'TIME', about: 'its secrets are rotated by this age, an hour at least; 0d: never' },
} as const

type Member = keyof typeof MEMBERS

export const policies: Command[] = [
  {
    name: 'customers policy',
    about:
      'Set what its tokens and sessions may be; what is left out stays, and default is what the server has',
    args: ['CUSTOMER'],
    options: MEMBERS,
    example: 'customers policy k5m2q7xw3bfz6tha --max-access-token-ttl 10m --scopes read,write',
    async run({ api, args: [id], options }) {
      const named = (Object.keys(MEMBERS) as Member[]).filter(member => options[member] !== undefined)
      if (named.length === 0)
        throw new CommandError(EXIT.usage, 'name what to set; customers show has what is set now')
      const changed = Object.fromEntries(
        named.map(member => [member.replaceAll('-', '_'), settingOf(member, options)]),
      )
      const read = await api.send('GET', at(id!))
      const { policy } = (await read.json()) as Answer
      const body = { ...policy, ...changed }
      const ifMatch = read.headers.get('etag') ?? undefined
      return shown(await api.call('PUT', at(id!, '/policy'), { body, ifMatch }))
    },
  },
]

/** Undefined: as the server has it. */
function settingOf(member: Member, options: Invocation['options']) {
  const text = String(options[member])
  if (text === 'default') return undefined
  if (member === 'scopes') return text.split(',')
  return member === 'refresh-policy' ? text : toSeconds(member, text)
}
