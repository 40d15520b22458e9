import { Option } from 'commander'
import { api, type Json } from '../client.ts'
import { AssayCommand } from '../command.ts'
import { customerPath, showCustomer } from '../customer.ts'
import { parseDuration } from '../duration.ts'
import { CommandError, EXIT } from '../errors.ts'
import { parseList, parseWholeNumber } from '../options.ts'

/** Removes a member from the policy: the server's own value applies again. */
const DEFAULT = 'default'

const orDefault =
  <Value>(parse: (text: string) => Value) =>
  (text: string) =>
    text === DEFAULT ? DEFAULT : parse(text)

const duration = (flags: string, description: string) =>
  new Option(flags, description).argParser(orDefault(parseDuration(0, '15m, or default')))

/** Each is called like the member of the policy, with - for _. */
export const policy = new AssayCommand('policy')
  .description(
    "Set limits of a customer's tokens and sessions. What is not named stays as it is. " +
      "The value default removes a limit, so that the server's applies. A duration is 10m, 12h or 1d.",
  )
  .argument('<customer>')
  .addOption(
    new Option('--scopes <a,b>', 'the only scopes its tokens may have').argParser(orDefault(parseList)),
  )
  .addOption(duration('--access-token-ttl <duration>', 'lifetime of an access token, if not requested'))
  .addOption(duration('--max-access-token-ttl <duration>', 'the longest lifetime that may be requested'))
  .addOption(duration('--refresh-token-ttl <duration>', 'how long a session may be idle'))
  .addOption(duration('--session-max-ttl <duration>', 'absolute lifetime of sessions that begin from now on'))
  .addOption(
    new Option(
      '--refresh-policy <policy>',
      'when a used refresh token may be presented again; reusable: always, by a client with its API key',
    ).choices(['until_confirmed', 'grace_only', 'strict', 'reusable', 'default']),
  )
  .addOption(
    duration('--key-max-age <duration>', 'age at which its secrets are rotated, 1h or more; 0d: never'),
  )
  .addOption(
    new Option(
      '--tokens-per-minute <number>',
      'tokens that it may be issued a minute, and as many refreshes',
    ).argParser(orDefault(parseWholeNumber(1, 6000))),
  )
  .addOption(
    new Option(
      '--signing-alg <alg>',
      'of its access tokens; any but HS512 lets others verify them without asking, who then learn of no revocation',
    ).choices(['HS512', 'EdDSA', 'ES256', 'RS256', 'default']),
  )
  .example('customers policy k5m2q7xw3bfz6tha --max-access-token-ttl 10m --scopes read,write')
  .show(async (id: string, { json: _, ...options }: Record<string, Json>) => {
    const changed = Object.entries(options).map(([name, value]) => [toMember(name), value])
    if (changed.length === 0)
      throw new CommandError(
        EXIT.usage,
        'name a limit to set; `assay customers show` shows those that are set',
      )
    const current = await api.send('GET', customerPath(id))
    const { policy } = (await current.json()) as Json
    const body = withoutDefaults({ ...policy, ...Object.fromEntries(changed) })
    const ifMatch = current.headers.get('etag') ?? undefined
    return showCustomer(await api.call('PUT', customerPath(id, '/policy'), { body, ifMatch }))
  })

/** `accessTokenTtl`, as commander has it, to `access_token_ttl`. */
const toMember = (name: string) => name.replace(/[A-Z]/g, letter => `_${letter.toLowerCase()}`)

const withoutDefaults = (policy: Json) =>
  Object.fromEntries(Object.entries(policy).filter(([, value]) => value !== DEFAULT))
