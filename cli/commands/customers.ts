import { readFile } from 'node:fs/promises'
import { api, type Json } from '../client.ts'
import { AssayCommand } from '../command.ts'
import { confirm, type YesOptions } from '../confirm.ts'
import { customerPath, describeCustomer, findCustomer, showCustomer } from '../customer.ts'
import { parseDuration } from '../duration.ts'
import { CommandError, EXIT } from '../errors.ts'
import { PASSWORD_FILE, toWaitQuery, WAIT, type WaitOptions, YES } from '../options.ts'
import { list, showTable } from '../output.ts'
import { ALL, LIMIT, type PagingOptions, readPages } from '../paging.ts'
import { terminal } from '../terminal.ts'
import { policy } from './customers-policy.ts'
import { changeEmail, resetPassword, verifyEmail } from './customers-tokens.ts'

/** An erasure is one act, however many rows it deletes. */
const ERASURE_TIMEOUT_MS = 600_000

interface PasswordOptions {
  passwordFile?: string
}

interface ListFilter {
  email?: string
  name?: string
  keysOlderThan?: number
  weakHashes?: true
  unusedFor?: number
}

const toListQuery = ({ email, name, keysOlderThan, weakHashes, unusedFor }: ListFilter) => ({
  ...{ email, name },
  keys_older_than: keysOlderThan?.toString(),
  weak_hashes: weakHashes && 'true',
  unused_for: unusedFor?.toString(),
})

export const customers = new AssayCommand('customers').description(
  'Find, create, change, disable and erase customers.',
)

customers
  .command('list')
  .description(
    'List customers, newest first. Activity is a login, an issued or refreshed token, or a use of an API key.',
  )
  .option('--email <text>', 'only those whose email begins with this')
  .option('--name <text>', 'only those whose name begins with this')
  .option(
    '--keys-older-than <duration>',
    'only those with a signing key older than this',
    parseDuration(1, '90d'),
  )
  .option('--weak-hashes', 'only those with an outdated password hash')
  .option('--unused-for <duration>', 'only those without activity for this long', parseDuration(1, '365d'))
  .addOption(LIMIT)
  .addOption(ALL)
  .example('customers list --keys-older-than 90d --unused-for 365d')
  .show(async (options: PagingOptions & ListFilter) => {
    const found = await readPages('/admin/customers', 'customers', options, toListQuery(options))
    const cells = (one: Json) => [one.id, one.email, one.name, one.state, one.created_at]
    return showTable(found, ['id', 'email', 'name', 'state', 'created'], cells)
  })

customers
  .command('show <customer>')
  .description('Show a customer, by its id or its email.')
  .example('customers show ann@example.com')
  .show(async (idOrEmail: string) => showCustomer(await findCustomer(idOrEmail)))

customers
  .command('create <email>')
  .description('Create a customer. Its API key is shown once.')
  .option('--name <text>', 'a display name')
  .addOption(PASSWORD_FILE)
  .example("customers create ann@example.com --name 'Ann'")
  .show(async (email: string, { name, passwordFile }: PasswordOptions & { name?: string }) => {
    const password = await readPassword(passwordFile)
    const created = await api.post('/admin/customers', { body: { email, name, password } })
    const text = list({ ...describeCustomer(created.customer), 'api key': created.api_key })
    return { json: created, text }
  })

customers
  .command('change <customer>')
  .description("Change a customer's email or name.")
  .option('--email <text>', 'the new email')
  .option('--name <text>', 'the new name')
  .example("customers change k5m2q7xw3bfz6tha --name 'Ann and Bob'")
  .show(async (id: string, { email, name }: { email?: string; name?: string }) =>
    showCustomer(await api.call('PATCH', customerPath(id), { body: { email, name } })),
  )

customers
  .command('disable <customer>')
  .description('Disable a customer. Its tokens and credentials are refused until it is enabled.')
  .addOption(WAIT)
  .example('customers disable k5m2q7xw3bfz6tha --wait')
  .show(async (id: string, options: WaitOptions) =>
    showCustomer(await api.post(customerPath(id, '/disable'), { query: toWaitQuery(options) })),
  )

customers
  .command('enable <customer>')
  .description('Enable a customer again. What was revoked meanwhile stays revoked.')
  .addOption(WAIT)
  .example('customers enable k5m2q7xw3bfz6tha')
  .show(async (id: string, options: WaitOptions) =>
    showCustomer(await api.post(customerPath(id, '/enable'), { query: toWaitQuery(options) })),
  )

customers
  .command('set-password <customer>')
  .description("Set a customer's password. This ends the account's own sessions.")
  .addOption(PASSWORD_FILE)
  .addOption(WAIT)
  .example('customers set-password k5m2q7xw3bfz6tha')
  .show(async (id: string, { passwordFile, ...options }: PasswordOptions & WaitOptions) => {
    if (passwordFile === undefined && !terminal.interactive)
      throw new CommandError(EXIT.usage, 'there is no terminal to type the password at; add --password-file')
    const password = (await readPassword(passwordFile)) ?? (await terminal.ask('New password: ', true))
    await api.call('PUT', customerPath(id, '/password'), { body: { password }, query: toWaitQuery(options) })
    return { json: { id }, text: 'done' }
  })

customers
  .command('erase <customer>')
  .description('Erase a customer and all its data. The audit keeps only ids.')
  .addOption(YES)
  .addOption(WAIT)
  .example('customers erase k5m2q7xw3bfz6tha')
  .show(async (id: string, options: YesOptions & WaitOptions) => {
    const { email } = await api.get(customerPath(id))
    await confirm(options, `erase ${email}: its keys, credentials, sessions and personal data`, id)
    const query = toWaitQuery(options)
    const receipt: Json = await api.delete(customerPath(id), { query, timeoutMs: ERASURE_TIMEOUT_MS })
    return { json: receipt, text: list(receipt) }
  })

for (const command of [resetPassword, verifyEmail, changeEmail, policy]) customers.addCommand(command)

/** Undefined: no file was named. */
async function readPassword(file: string | undefined): Promise<string | undefined> {
  if (file === undefined) return undefined
  if (file === '-') return terminal.input()
  const text = await readFile(file, 'utf8').catch(({ code }) => {
    throw new CommandError(
      EXIT.usage,
      `the password file ${file} can't be read (${code}); check its path and permissions`,
    )
  })
  // Spaces may belong to a password; a byte order mark and line ends are the editor's.
  return text.replace(/^\uFEFF/, '').replace(/[\r\n]+$/, '')
}
