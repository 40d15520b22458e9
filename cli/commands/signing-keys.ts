import type { Answer } from '../client.ts'
import { type Command, CommandError, EXIT } from '../command.ts'
import { confirm, YES } from '../confirm.ts'
import { listing, table } from '../output.ts'
import { WAIT, waiting } from '../waiting.ts'
import { at } from './customers.ts'

export const secrets: Command[] = [
  {
    name: 'secrets list',
    about: "A customer's secrets: versions, states and ages, never the bytes",
    args: ['CUSTOMER'],
    example: 'secrets list k5m2q7xw3bfz6tha',
    async run({ api, args: [id] }) {
      const { secrets } = await api.get(at(id!, '/secrets'))
      const row = (one: Answer) => [one.use, one.version, one.state, one.created_at, one.live_sessions]
      return {
        json: secrets,
        text: table(['use', 'version', 'state', 'created', 'live sessions'], secrets.map(row)),
      }
    },
  },
  {
    name: 'secrets rotate',
    about: 'Put new secrets in place; nobody is logged out, unless --now ends what the old ones signed',
    args: ['CUSTOMER'],
    options: {
      use: { value: 'access|refresh|both', about: 'which (both)' },
      now: { about: 'a secret has leaked: end what it signed at once, on every replica' },
      'dry-run': { about: 'only say what --now would end' },
      ...YES,
    },
    example: 'secrets rotate k5m2q7xw3bfz6tha --use access --now',
    async run(invocation) {
      const { api, args, options } = invocation
      const id = args[0]!
      const asked = { use: options.use ?? 'both', now: options.now ?? false }
      const rotate = (body: object) => api.post(at(id, '/secrets/rotate'), { body })
      if (options['dry-run']) {
        const { would_end } = await rotate({ ...asked, now: true, dry_run: true })
        return { json: { would_end }, text: `would end ${ends(would_end)}` }
      }
      if (options.now && !options.yes) await confirm(invocation, `Ends ${await counted(rotate, asked)}`, id)
      const done = await rotate(asked)
      const versions = done.versions.map(({ use, version }: Answer) => `${use} ${version}`).join(', ')
      return { json: done, text: listing({ versions, effective: done.effective_at }) }
    },
  },
  {
    name: 'secrets retire',
    about: 'Retire an older version sooner than by itself, if nothing live needs it',
    args: ['CUSTOMER', 'USE', 'VERSION'],
    options: WAIT,
    example: 'secrets retire k5m2q7xw3bfz6tha refresh 1',
    async run({ api, args: [id, use, version], options }) {
      if (!/^\d+$/.test(version!))
        throw new CommandError(EXIT.usage, 'VERSION: a whole number, as `secrets list` shows')
      const body = { use, version: Number(version) }
      const done = await api.post(at(id!, '/secrets/retire'), { body, query: waiting(options) })
      return { json: done, text: listing(done) }
    },
  },
]

/** Where there is too much to count in time, it is asked all the same. */
const counted = (rotate: (body: object) => Promise<Answer>, asked: object) =>
  rotate({ ...asked, dry_run: true }).then(
    ({ would_end }) => ends(would_end),
    () => 'what could not be counted in time',
  )

const ends = ({ sessions, tokens }: { sessions: number; tokens: number }) =>
  `${sessions} sessions and at most ${tokens} access tokens`
