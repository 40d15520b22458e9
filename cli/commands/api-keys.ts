import { api, type Json, pathSegment } from '../client.ts'
import { AssayCommand } from '../command.ts'
import { customerPath } from '../customer.ts'
import { parseDuration } from '../duration.ts'
import { parseList, toWaitQuery, WAIT, type WaitOptions } from '../options.ts'
import { list, showTable } from '../output.ts'

export const keys = new AssayCommand('keys').description("Manage a customer's API keys.")

keys
  .command('list <customer>')
  .description("List a customer's API keys, newest first.")
  .example('keys list k5m2q7xw3bfz6tha')
  .show(async (id: string) => {
    const { keys } = await api.get(customerPath(id, '/keys'))
    const cells = (key: Json) => [key.id, key.name, key.scopes.join(' '), key.expires_at, key.last_used_at]
    return showTable(keys, ['id', 'name', 'scopes', 'expires', 'last used'], cells)
  })

interface CreateOptions {
  name?: string
  scopes?: string[]
  expiresIn?: number
}

keys
  .command('create <customer>')
  .description('Create an API key. It is shown once.')
  .option('--name <text>', 'a display name')
  .option('--scopes <a,b>', 'scopes that its tokens may have (default: any)', parseList)
  .option('--expires-in <duration>', 'its lifetime (default: unlimited)', parseDuration(1, '90d'))
  .example('keys create k5m2q7xw3bfz6tha --name ci --scopes read --expires-in 90d')
  .show(async (id: string, { name, scopes, expiresIn }: CreateOptions) => {
    const body = { name, scopes, expires_in: expiresIn }
    const key = await api.post(customerPath(id, '/keys'), { body })
    const { id: keyId, name: keyName, scopes: granted, expires_at: expires = 'never', api_key } = key
    const shown = { id: keyId, name: keyName, scopes: granted.join(' '), expires, 'api key': api_key }
    return { json: key, text: list(shown) }
  })

keys
  .command('delete <customer> <key>')
  .description('Delete an API key. The tokens that it issued stay valid.')
  .addOption(WAIT)
  .example('keys delete k5m2q7xw3bfz6tha k5m2q7xw3bfz6thapr4wd2nqx7m3vzkc')
  .show(async (id: string, key: string, options: WaitOptions) => {
    const query = toWaitQuery(options)
    await api.delete(customerPath(id, `/keys/${pathSegment(key)}`), { query })
    return { json: { id: key }, text: 'done' }
  })
