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
    "Limit a customer's tokens and sessions. An omitted option keeps its value, and the value " +
      "default restores the server's. A duration is 10m, 12h or 1d. With reusable, a client that has an " +
      'API key keeps its refresh token. Any algorithm but HS512 allows offline verification, which ' +
      'ignores revocations.',
  )
  .argument('<customer>')
  .addOption(new Option('--scopes <a,b>', 'scopes that its tokens may have').argParser(orDefault(parseList)))
  .addOption(duration('--access-token-ttl <duration>', 'default lifetime of access tokens'))
  .addOption(duration('--max-access-token-ttl <duration>', 'the longest lifetime that can be requested'))
  .addOption(duration('--refresh-token-ttl <duration>', 'how long a session may be idle'))
  .addOption(duration('--session-max-ttl <duration>', 'absolute lifetime of new sessions'))
  .addOption(
    new Option('--refresh-policy <policy>', 'reuse of refresh tokens').choices([
      'until_confirmed',
      'grace_only',
      'strict',
      'reusable',
      'default',
    ]),
  )
  .addOption(duration('--key-max-age <duration>', 'rotate keys at this age (0d: never)'))
  .addOption(
    new Option('--tokens-per-minute <number>', 'tokens a minute, and as many refreshes').argParser(
      orDefault(parseWholeNumber(1, 6000)),
    ),
  )
  .addOption(
    new Option('--signing-alg <alg>', 'algorithm of access tokens').choices([
      'HS512',
      'EdDSA',
      'ES256',
      'RS256',
      'default',
    ]),
  )
  .example('customers policy k5m2q7xw3bfz6tha --access-token-ttl 10m --scopes read')
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
