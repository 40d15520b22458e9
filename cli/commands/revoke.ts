import { api } from '../client.ts'
import { AssayCommand } from '../command.ts'
import { confirm, type YesOptions } from '../confirm.ts'
import { customerPath } from '../customer.ts'
import { CommandError, EXIT } from '../errors.ts'
import { toWaitQuery, WAIT, type WaitOptions, YES } from '../options.ts'
import { DONE } from '../output.ts'
import { readToken } from '../terminal.ts'

export const revoke = new AssayCommand('revoke').description(
  'Revoke one token, or all of a user, a customer or everyone.',
)

revoke
  .command('token')
  .description('Revoke a token that is read from standard input. A refresh token ends its session.')
  .addOption(WAIT)
  .example('revoke token < token.txt')
  .show(async (options: WaitOptions) => {
    const text = await readToken()
    assertToken(text)
    await api.post('/admin/revoke', { body: { token: text }, query: toWaitQuery(options) })
    return DONE
  })

revoke
  .command('subject <customer> <subject>')
  .description('Revoke all tokens and sessions of a user.')
  .addOption(WAIT)
  .example('revoke subject k5m2q7xw3bfz6tha user-42 --wait')
  .show(async (id: string, subject: string, options: WaitOptions) => {
    const path = customerPath(id, '/subjects/revoke')
    await api.post(path, { body: { subject }, query: toWaitQuery(options) })
    return DONE
  })

revoke
  .command('customer <customer>')
  .description("Revoke all of a customer's tokens and sessions.")
  .addOption(WAIT)
  .addOption(YES)
  .example('revoke customer k5m2q7xw3bfz6tha')
  .show(async (id: string, options: WaitOptions & YesOptions) => {
    const { email } = await api.get(customerPath(id))
    await confirm(options, `revoke every token and session of ${email} and of its users`, id)
    await api.post(customerPath(id, '/revoke'), { query: toWaitQuery(options) })
    return DONE
  })

revoke
  .command('everyone')
  .description(
    'Revoke all tokens and sessions of all customers. API keys, passwords and signing keys stay valid.',
  )
  .addOption(WAIT)
  .addOption(YES)
  .example('revoke everyone --wait')
  .show(async (options: WaitOptions & YesOptions) => {
    const act = `revoke every token and session of every customer at ${api.url}`
    await confirm(options, act, 'everyone', '"everyone"')
    await api.post('/admin/revoke', { body: { everyone: true }, query: toWaitQuery(options) })
    return DONE
  })

/** The server accepts anything, as RFC 7009 2.2 requires. An operator must not believe that a credential was revoked. */
function assertToken(text: string) {
  if (/^[\w-]+\.[\w-]+\.[\w-]+$/.test(text)) return
  const other = Object.keys(OF_CREDENTIALS).find(prefix => text.startsWith(prefix))
  throw new CommandError(
    EXIT.usage,
    other ? OF_CREDENTIALS[other]! : 'this is not a token; check that it is complete',
  )
}

const OF_CREDENTIALS: Record<string, string> = {
  assay_ak_: 'this is an API key; delete it with `assay keys delete`',
  assay_sv_: "this is a service's credential; replace it with `assay services rotate`",
}
