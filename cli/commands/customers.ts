import type { Answer } from '../client.ts'
import type { Command, Invocation, Shown } from '../command.ts'
import { CommandError, EXIT } from '../command.ts'
import { confirm, YES } from '../confirm.ts'
import { inUnits } from '../duration.ts'
import { listing, table } from '../output.ts'
import { PAGING, pages } from '../paging.ts'
import { WAIT, waiting } from '../waiting.ts'

const PASSWORD = { 'password-file': { value: 'FILE', about: 'the password; - for what is piped in' } }

export const at = (id: string, more = '') => `/admin/customers/${encodeURIComponent(id)}${more}`

/** Erasing is one act, however much there is (ms). */
const ERASURE_TIMEOUT_MS = 600_000

export const customers: Command[] = [
  {
    name: 'customers list',
    about: 'Customers, newest first, or those whose email or name begins so',
    options: {
      email: { value: 'TEXT', about: 'what the email begins with' },
      name: { value: 'TEXT', about: 'what the name begins with' },
      ...PAGING,
    },
    example: 'customers list --email ann@',
    async run(invocation) {
      const { email, name } = invocation.options
      const found = await pages(invocation, '/admin/customers', 'customers', { email, name })
      const row = ({ id, email, name, state, created_at }: Answer) => [id, email, name, state, created_at]
      return { json: found, text: table(['id', 'email', 'name', 'state', 'created'], found.map(row)) }
    },
  },
  {
    name: 'customers show',
    about: 'A customer',
    args: ['CUSTOMER'],
    example: 'customers show k5m2q7xw3bfz6tha',
    run: async ({ api, args: [id] }) => shown(await api.get(at(id!))),
  },
  {
    name: 'customers create',
    about: 'Create a customer; its API key is shown once',
    args: ['EMAIL'],
    options: { name: { value: 'TEXT', about: 'for people' }, ...PASSWORD },
    example: "customers create ann@example.com --name 'Ann'",
    async run({ api, args: [email], options, terminal }) {
      const password = await passwordOf(options, terminal)
      const made = await api.post('/admin/customers', { body: { email, name: options.name, password } })
      return { json: made, text: listing({ ...membersOf(made.customer), 'api key': made.api_key }) }
    },
  },
  {
    name: 'customers change',
    about: "Change a customer's email or name",
    args: ['CUSTOMER'],
    options: {
      email: { value: 'TEXT', about: 'the new one' },
      name: { value: 'TEXT', about: 'the new one' },
    },
    example: "customers change k5m2q7xw3bfz6tha --name 'Ann and Bob'",
    run: async ({ api, args: [id], options: { email, name } }) =>
      shown(await api.call('PATCH', at(id!), { body: { email, name } })),
  },
  {
    name: 'customers disable',
    about: 'Refuse its tokens and credentials, until it is enabled',
    args: ['CUSTOMER'],
    options: WAIT,
    example: 'customers disable k5m2q7xw3bfz6tha --wait',
    run: async ({ api, args: [id], options }) =>
      shown(await api.post(at(id!, '/disable'), { query: waiting(options) })),
  },
  {
    name: 'customers enable',
    about: 'Let it go on, with what was not revoked meanwhile',
    args: ['CUSTOMER'],
    options: WAIT,
    example: 'customers enable k5m2q7xw3bfz6tha',
    run: async ({ api, args: [id], options }) =>
      shown(await api.post(at(id!, '/enable'), { query: waiting(options) })),
  },
  {
    name: 'customers set-password',
    about: "Set its password, and end the account's own sessions",
    args: ['CUSTOMER'],
    options: { ...PASSWORD, ...WAIT },
    example: 'customers set-password k5m2q7xw3bfz6tha',
    async run({ api, args: [id], options, terminal }) {
      const given = await passwordOf(options, terminal)
      if (given === undefined && !terminal.interactive)
        throw new CommandError(EXIT.usage, 'name a --password-file: nobody is there to type one')
      const password = given ?? (await terminal.ask('New password: ', true))
      await api.call('PUT', at(id!, '/password'), { body: { password }, query: waiting(options) })
      return { json: { id }, text: 'done' }
    },
  },
  {
    name: 'customers erase',
    about: 'Erase a customer: all but ids in the audit',
    args: ['CUSTOMER'],
    options: { ...YES, ...WAIT },
    example: 'customers erase k5m2q7xw3bfz6tha',
    async run(invocation) {
      const { api, args, options } = invocation
      const id = args[0]!
      const { email } = await api.get(at(id))
      await confirm(
        invocation,
        `Erases ${email}: its keys, credentials and sessions, and what is personal`,
        id,
      )
      const receipt = await api.delete(at(id), { query: waiting(options), patience: ERASURE_TIMEOUT_MS })
      return { json: receipt, text: listing(receipt) }
    },
  },
]

/** A customer, with what its policy sets. */
export const shown = (customer: Answer): Shown => ({
  json: customer,
  text: listing(membersOf(customer)),
})

const membersOf = (customer: Answer) => ({
  id: customer.id,
  email: customer.email,
  name: customer.name,
  state: customer.state,
  created: customer.created_at,
  ...policyOf(customer),
})

/** Lifetimes in the units that they are set in. */
const policyOf = ({ policy = {} }: Answer) =>
  Object.fromEntries(
    Object.entries(policy).map(([member, value]) => [
      member.replaceAll('_', ' '),
      typeof value === 'number' ? inUnits(value) : Array.isArray(value) ? value.join(' ') : value,
    ]),
  )

async function passwordOf(options: Invocation['options'], terminal: Invocation['terminal']) {
  const file = options['password-file']
  if (file === undefined) return undefined
  return file === '-' ? terminal.input() : readSecret(String(file))
}

async function readSecret(path: string): Promise<string> {
  const { readFile } = await import('node:fs/promises')
  const text = await readFile(path, 'utf8').catch(({ code }) => {
    throw new CommandError(EXIT.usage, `${path} can't be read (${code})`)
  })
  return text.replace(/\r?\n$/, '')
}
