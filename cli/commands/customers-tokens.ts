import { Option } from 'commander'
import { api } from '../client.ts'
import { AssayCommand, type Output } from '../command.ts'
import { customerPath, findCustomer } from '../customer.ts'
import { parseDuration } from '../duration.ts'
import { list } from '../output.ts'

/** One-time tokens for a customer's account. Assay sends no mail, so each command prints the token to send. */

const EXPIRES_IN = new Option('--expires-in <duration>', 'its lifetime, 5m to 24h (default: 1h)').argParser(
  parseDuration(300, '1h'),
)

interface TokenOptions {
  expiresIn?: number
}

async function create(idOrEmail: string, path: string, body: object): Promise<Output> {
  const { id } = await findCustomer(idOrEmail)
  const created = await api.post(customerPath(id, path), { body })
  return {
    json: created,
    text: list({ 'send to': created.email, token: created.token, expires: created.expires_at }),
  }
}

export const resetPassword = new AssayCommand('reset-password')
  .argument('<customer>')
  .description('Create a token that resets the password. It works once.')
  .addOption(EXPIRES_IN)
  .example('customers reset-password ann@example.com')
  .show((customer: string, { expiresIn }: TokenOptions) =>
    create(customer, '/password-reset', { expires_in: expiresIn }),
  )

export const verifyEmail = new AssayCommand('verify-email')
  .argument('<customer>')
  .description('Create a token that verifies the email. It works once.')
  .addOption(EXPIRES_IN)
  .example('customers verify-email ann@example.com')
  .show((customer: string, { expiresIn }: TokenOptions) =>
    create(customer, '/email-verification', { expires_in: expiresIn }),
  )

export const changeEmail = new AssayCommand('change-email')
  .argument('<customer>')
  .argument('<email>')
  .description('Create a token that changes the email. It works once. The new email counts as verified.')
  .addOption(EXPIRES_IN)
  .example('customers change-email ann@example.com ann@example.org')
  .show((customer: string, email: string, { expiresIn }: TokenOptions) =>
    create(customer, '/email-change', { email, expires_in: expiresIn }),
  )
