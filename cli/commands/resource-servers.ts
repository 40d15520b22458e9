import { Option } from 'commander'
import { api, type Json, pathSegment } from '../client.ts'
import { AssayCommand, type Output } from '../command.ts'
import { parseDuration } from '../duration.ts'
import { parseList, toWaitQuery, WAIT, type WaitOptions } from '../options.ts'
import { list, showTable } from '../output.ts'

const NAME = new Option('--name <text>', 'a name for people')
const CUSTOMERS = new Option('--customers <a,b>', 'customers whose tokens it may introspect (all)').argParser(
  parseList,
)
const SCOPES = new Option('--scopes <a,b>', 'a token must have one of these scopes (any)').argParser(
  parseList,
)

interface ServerOptions {
  name?: string
  customers?: string[]
  scopes?: string[]
}

const serverPath = (id: string, more = '') => `/admin/servers/${pathSegment(id)}${more}`

export const servers = new AssayCommand('servers').description(
  'Manage resource servers, which may introspect tokens.',
)

servers
  .command('list')
  .description('List resource servers, newest first. Those of RESOURCE_SERVERS are not among them.')
  .example('servers list')
  .show(async () => {
    const { servers } = await api.get('/admin/servers')
    return showTable(servers, ['id', 'name', 'customers', 'scopes', 'created'], one => {
      const [customers, scopes] = [one.customers?.join(' '), one.scopes?.join(' ')]
      return [one.id, one.name, customers, scopes, one.created_at]
    })
  })

servers
  .command('create')
  .description('Create a resource server. Its credential is shown once.')
  .addOption(NAME)
  .addOption(CUSTOMERS)
  .addOption(SCOPES)
  .example('servers create --name gateway')
  .show(async ({ name, customers, scopes }: ServerOptions) =>
    showServer(await api.post('/admin/servers', { body: { name, customers, scopes } })),
  )

servers
  .command('change <server>')
  .description('Change the name or the limits of a resource server. What is not named stays as it is.')
  .addOption(NAME)
  .addOption(CUSTOMERS)
  .addOption(SCOPES)
  .option('--all-customers', 'remove the limit on customers')
  .option('--any-scope', 'remove the limit on scopes')
  .addOption(WAIT)
  .example('servers change q7xw3bfz6thapr4wd2nqx7m3 --customers k5m2q7xw3bfz6tha')
  .show(
    async (id: string, options: ServerOptions & WaitOptions & { allCustomers?: true; anyScope?: true }) => {
      const { servers } = await api.get('/admin/servers')
      const now = servers.find((server: Json) => server.id === id) ?? {}
      const { name, customers = now.customers, scopes = now.scopes } = options
      const body = {
        name,
        customers: options.allCustomers ? undefined : customers,
        scopes: options.anyScope ? undefined : scopes,
      }
      return showServer(await api.call('PUT', serverPath(id), { body, query: toWaitQuery(options) }))
    },
  )

servers
  .command('rotate <server>')
  .description('Create a new credential for a resource server. It is shown once.')
  .option(
    '--overlap <duration>',
    'how long the current credential stays valid (1d); 0s if it has leaked',
    parseDuration(0, '1h'),
  )
  .addOption(
    new Option(
      '--end <which>',
      'if two are valid, the one that ends at once: current is the newest, previous the one before it',
    ).choices(['previous', 'current']),
  )
  .example('servers rotate q7xw3bfz6thapr4wd2nqx7m3 --overlap 1h')
  .show(async (id: string, { overlap, end }: { overlap?: number; end?: string }) => {
    const server = await api.post(serverPath(id, '/rotate'), { body: { overlap, end } })
    const { previous_until: until } = server
    const previous = until === undefined ? 'ended now' : `valid until ${until}`
    return { json: server, text: list({ ...describeServer(server), 'previous credential': previous }) }
  })

servers
  .command('delete <server>')
  .description('Delete a resource server and its credential.')
  .addOption(WAIT)
  .example('servers delete q7xw3bfz6thapr4wd2nqx7m3')
  .show(async (id: string, options: WaitOptions) => {
    await api.delete(serverPath(id), { query: toWaitQuery(options) })
    return { json: { id }, text: 'done' }
  })

const describeServer = (server: Json) => ({
  id: server.id,
  name: server.name,
  customers: server.customers?.join(' '),
  scopes: server.scopes?.join(' '),
  credential: server.credential,
})

const showServer = (server: Json): Output => ({ json: server, text: list(describeServer(server)) })
