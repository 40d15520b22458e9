import type { Answer } from '../client.ts'
import { type Command, CommandError, EXIT, type Invocation, type Shown } from '../command.ts'
import { listing, table } from '../output.ts'
import { WAIT, waiting } from '../waiting.ts'

const LIMITS = {
  name: { value: 'TEXT', about: 'for people' },
  customers: { value: 'A,B', about: 'whose tokens it may know of (all)' },
  scopes: { value: 'A,B', about: 'a token must have one of them (any)' },
}

const at = (id: string, more = '') => `/admin/servers/${encodeURIComponent(id)}${more}`

export const servers: Command[] = [
  {
    name: 'servers list',
    about: 'Resource servers, newest first; those of RESOURCE_SERVERS are not among them',
    example: 'servers list',
    async run({ api }) {
      const { servers } = await api.get('/admin/servers')
      const row = (one: Answer) => [
        one.id,
        one.name,
        one.customers?.join(' '),
        one.scopes?.join(' '),
        one.created_at,
      ]
      return {
        json: servers,
        text: table(['id', 'name', 'customers', 'scopes', 'created'], servers.map(row)),
      }
    },
  },
  {
    name: 'servers create',
    about: 'Create a resource server, which may introspect; its credential is shown once',
    options: LIMITS,
    example: 'servers create --name gateway',
    run: async ({ api, options }) => shown(await api.post('/admin/servers', { body: limitsOf(options) })),
  },
  {
    name: 'servers change',
    about: 'Change what a resource server is limited to, or its name; what is left out stays',
    args: ['SERVER'],
    options: {
      ...LIMITS,
      'all-customers': { about: 'of no customer in particular' },
      'any-scope': { about: 'of no scope in particular' },
      ...WAIT,
    },
    example: 'servers change q7xw3bfz6thapr4wd2nqx7m3 --customers k5m2q7xw3bfz6tha',
    async run({ api, args: [id], options }) {
      const { servers } = await api.get('/admin/servers')
      const now = servers.find((server: Answer) => server.id === id) ?? {}
      const { name, customers = now.customers, scopes = now.scopes } = limitsOf(options)
      const body = {
        name,
        customers: options['all-customers'] ? undefined : customers,
        scopes: options['any-scope'] ? undefined : scopes,
      }
      return shown(await api.call('PUT', at(id!), { body, query: waiting(options) }))
    },
  },
  {
    name: 'servers rotate',
    about: 'Give it another credential, which is shown once',
    args: ['SERVER'],
    options: {
      overlap: { value: 'SECONDS', about: 'how long the one until now goes on (a day); 0: it has leaked' },
      end: { value: 'previous|current', about: 'of two that are good, the one that ends at once' },
    },
    example: 'servers rotate q7xw3bfz6thapr4wd2nqx7m3 --overlap 3600',
    async run({ api, args: [id], options }) {
      const { overlap, end } = options
      if (overlap !== undefined && !/^\d{1,9}$/.test(String(overlap)))
        throw new CommandError(EXIT.usage, '--overlap: whole seconds, for example 3600')
      const body = { overlap: overlap === undefined ? undefined : Number(overlap), end }
      return shown(await api.post(at(id!, '/rotate'), { body }))
    },
  },
  {
    name: 'servers delete',
    about: 'End a resource server and its credential',
    args: ['SERVER'],
    options: WAIT,
    example: 'servers delete q7xw3bfz6thapr4wd2nqx7m3',
    async run({ api, args: [id], options }) {
      await api.delete(at(id!), { query: waiting(options) })
      return { json: { id }, text: 'done' }
    },
  },
]

const listOf = (text: string | boolean | undefined) =>
  typeof text === 'string' ? text.split(',') : undefined

const limitsOf = ({ name, customers, scopes }: Invocation['options']) => ({
  name,
  customers: listOf(customers),
  scopes: listOf(scopes),
})

const shown = (server: Answer): Shown => ({
  json: server,
  text: listing({
    id: server.id,
    name: server.name,
    customers: server.customers?.join(' '),
    scopes: server.scopes?.join(' '),
    'old one until': server.previous_until,
    credential: server.credential,
  }),
})
