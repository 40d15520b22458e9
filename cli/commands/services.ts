import { Option } from 'commander'
import { api, type Json, pathSegment } from '../client.ts'
import { AssayCommand, type Output } from '../command.ts'
import { parseDuration } from '../duration.ts'
import { CommandError, EXIT } from '../errors.ts'
import { parseList, toWaitQuery, WAIT, type WaitOptions } from '../options.ts'
import { list, showTable } from '../output.ts'

const MAY = new Option(
  '--may <a,b>',
  'its rights: issue, refresh, revoke, introspect, sessions, rotate, create, disable, reset',
).argParser(parseList)
const CUSTOMERS = new Option('--customers <a,b>', 'customers that it may serve').argParser(parseList)
const SCOPES = new Option(
  '--scopes <a,b>',
  'scopes that it may grant; a token must have one of them',
).argParser(parseList)

interface Permissions {
  may?: string[]
  customers?: string[]
  scopes?: string[]
}

const servicePath = (id: string, more = '') => `/admin/services/${pathSegment(id)}${more}`

/** Finds a service by its id or its name. */
async function findService(given: string): Promise<Json> {
  const { services }: { services: Json[] } = await api.get('/admin/services')
  const found = services.find(({ id }) => id === given) ?? services.find(({ name }) => name === given)
  if (found === undefined) throw new CommandError(EXIT.refused, NO_SUCH_SERVICE)
  return found
}

const NO_SUCH_SERVICE = 'no such service; `assay services list` shows the ids and names'

export const services = new AssayCommand('services').description(
  'Manage gateways and backends that serve many customers.',
)

services
  .command('list')
  .description('List services, newest first. Those of the setting SERVICES are not included.')
  .example('services list')
  .show(async () => {
    const { services } = await api.get('/admin/services')
    const columns = ['id', 'name', 'may', 'customers', 'scopes', 'created', 'last used']
    return showTable(services, columns, one => {
      const [may, customers, scopes] = [one.may.join(' '), one.customers?.join(' '), one.scopes?.join(' ')]
      return [one.id, one.name, may, customers, scopes, one.created_at, one.last_used_at]
    })
  })

services
  .command('create')
  .description(
    'Create a service. Its credential is shown once. By default it serves all customers and every scope.',
  )
  .requiredOption('--name <text>', 'a letter and up to 39 of a-z, 0-9 and -')
  .addOption(new Option(MAY.flags, MAY.description).argParser(parseList).makeOptionMandatory())
  .addOption(CUSTOMERS)
  .addOption(SCOPES)
  .example(
    'services create --name gateway --may introspect',
    'services create --name shop-api --may issue,refresh,revoke',
  )
  .show(async ({ name, may, customers, scopes }: Permissions & { name: string }) =>
    showService(await api.post('/admin/services', { body: { name, may, customers, scopes } })),
  )

services
  .command('change <service>')
  .description(
    'Change the rights or the limits of a service, named by id or name. An omitted option changes nothing.',
  )
  .addOption(MAY)
  .addOption(CUSTOMERS)
  .addOption(SCOPES)
  .option('--all-customers', 'remove the limit on customers')
  .option('--any-scope', 'remove the limit on scopes')
  .addOption(WAIT)
  .example('services change shop-api --may introspect,revoke')
  .show(
    async (given: string, options: Permissions & WaitOptions & { allCustomers?: true; anyScope?: true }) => {
      // For an unknown service the server answers 404, if the request is otherwise right.
      const { id, ...now } = { may: ['introspect'], ...(await findService(given)) }
      const { may = now.may, customers = now.customers, scopes = now.scopes } = options
      const body = {
        may,
        customers: options.allCustomers ? undefined : customers,
        scopes: options.anyScope ? undefined : scopes,
      }
      return showService(await api.call('PUT', servicePath(id), { body, query: toWaitQuery(options) }))
    },
  )

services
  .command('rotate <service>')
  .description(
    'Create a new credential for a service, named by id or name. It is shown once. ' +
      'The current one stays valid for --overlap; use 0s if it has leaked. ' +
      'At most two are valid: if there are two already, --end says which of them ends now.',
  )
  .option(
    '--overlap <duration>',
    'how long the current one stays valid (default: 1d)',
    parseDuration(0, '1h'),
  )
  .addOption(new Option('--end <which>', 'which one ends now').choices(['previous', 'current']))
  .example('services rotate shop-api --overlap 1h')
  .show(async (given: string, { overlap, end }: { overlap?: number; end?: string }) => {
    const { id } = await findService(given)
    const service = await api.post(servicePath(id, '/rotate'), { body: { overlap, end } })
    const { previous_until: until } = service
    const previous = until === undefined ? 'ended now' : `valid until ${until}`
    return { json: service, text: list({ ...describeService(service), 'previous credential': previous }) }
  })

services
  .command('delete <service>')
  .description('Delete a service, named by id or name, and its credential.')
  .addOption(WAIT)
  .example('services delete shop-api')
  .show(async (given: string, options: WaitOptions) => {
    const { id } = await findService(given)
    await api.delete(servicePath(id), { query: toWaitQuery(options) })
    return { json: { id }, text: 'done' }
  })

const describeService = (service: Json) => ({
  id: service.id,
  name: service.name,
  may: service.may.join(' '),
  customers: service.customers?.join(' '),
  scopes: service.scopes?.join(' '),
  credential: service.credential,
})

const showService = (service: Json): Output => ({ json: service, text: list(describeService(service)) })
