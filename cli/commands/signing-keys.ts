import { Argument, Option } from 'commander'
import { api, type Json } from '../client.ts'
import { AssayCommand } from '../command.ts'
import { confirm, type YesOptions } from '../confirm.ts'
import { customerPath } from '../customer.ts'
import { formatSeconds } from '../duration.ts'
import { parseWholeNumber, toWaitQuery, WAIT, type WaitOptions, YES } from '../options.ts'
import { list, showTable } from '../output.ts'

export const secrets = new AssayCommand('secrets').description(
  "Manage the keys that sign a customer's tokens.",
)

secrets
  .command('list <customer>')
  .description("List a customer's signing keys. Their bytes are never shown.")
  .example('secrets list k5m2q7xw3bfz6tha')
  .show(async (id: string) => {
    const { secrets } = await api.get(customerPath(id, '/secrets'))
    const cells = (one: Json) => [one.use, one.version, one.state, one.alg, one.created_at, one.live_sessions]
    return showTable(secrets, ['use', 'version', 'state', 'alg', 'created', 'live sessions'], cells)
  })

interface RotateOptions extends YesOptions {
  use: string
  now?: true
  dryRun?: true
}

secrets
  .command('rotate <customer>')
  .description(
    "Replace a customer's signing keys. No user is logged out, unless --now ends what the old keys signed.",
  )
  .addOption(new Option('--use <use>', 'which keys').choices(['access', 'refresh', 'both']).default('both'))
  .option('--now', 'after a leak: end what the old keys signed, on every replica')
  .option('--dry-run', 'show what --now would end, and change nothing')
  .addOption(YES)
  .example('secrets rotate k5m2q7xw3bfz6tha --use access --now')
  .show(async (id: string, { use, now = undefined, dryRun, yes }: RotateOptions) => {
    const rotate = (body: object) => api.post(customerPath(id, '/secrets/rotate'), { body: { use, ...body } })
    if (dryRun) {
      const { would_end } = await rotate({ now: true, dry_run: true })
      return { json: { would_end }, text: `would end ${describeLosses(would_end)}` }
    }
    if (now && !yes) await confirm({}, `end ${await countLosses(rotate)}`, id)
    const done = await rotate({ now: now ?? false })
    const versions = done.versions.map(({ use, version }: Json) => `${use} ${version}`).join(', ')
    return { json: done, text: list({ versions, effective: done.effective_at, ...describeLocal(done) }) }
  })

secrets
  .command('retire <customer>')
  .description('Retire an older signing key early. It is refused while live tokens or sessions need the key.')
  .addArgument(new Argument('<use>', 'its use').choices(['access', 'refresh']))
  .argument('<version>', 'as `assay secrets list` shows', parseWholeNumber(1, 1))
  .addOption(WAIT)
  .example('secrets retire k5m2q7xw3bfz6tha refresh 1')
  .show(async (id: string, use: string, version: number, options: WaitOptions) => {
    const body = { use, version }
    const done = await api.post(customerPath(id, '/secrets/retire'), { body, query: toWaitQuery(options) })
    return { json: done, text: list(done) }
  })

/** Information about offline verifiers. */
const describeLocal = ({ next, local_verifiers: local }: Json) => ({
  next: next && `access ${next.version}, published`,
  'old tokens expire by': local?.accept_until,
  'JWKS cached for': local && formatSeconds(local.jwks_max_age),
})

/** The confirmation is requested even if there is too much to count in time. */
const countLosses = (rotate: (body: object) => Promise<Json>) =>
  rotate({ now: true, dry_run: true }).then(
    ({ would_end }) => describeLosses(would_end),
    () => 'more sessions and access tokens than could be counted in time',
  )

const describeLosses = ({ sessions, tokens, partial }: Json) =>
  partial
    ? `at least ${sessions} sessions and an unknown number of access tokens`
    : `${sessions} sessions and at most ${tokens} access tokens`
