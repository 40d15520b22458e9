import { z } from 'zod'
import { accountKeeper, type Keeper } from '../http/auth.ts'
import { readJson } from '../http/body.ts'
import type { Call, Routes } from '../http/call.ts'
import { waitForAll, waitOf } from '../http/consistency.ts'
import { auditContextOf, type Services } from '../http/env.ts'
import { present } from '../http/params.ts'
import { json } from '../http/respond.ts'
import type { SecretRow } from '../keys/rotation.ts'

type Needs = Pick<
  Services,
  'changeFeed' | 'metrics' | 'proxies' | 'retirement' | 'secrets' | 'sessions' | 'tokens'
>

/** A customer's own secrets: everything about them but their bytes. */
export const secretRoutes = (services: Needs): Routes =>
  keptSecrets(services, '/api', accountKeeper(services))

/** Those of the customer that the keeper names. */
export const keptSecrets = (services: Needs, base: string, keeper: Keeper): Routes => ({
  [`GET ${base}/secrets`]: listSecrets(services, keeper),
  [`POST ${base}/secrets/rotate`]: rotate(services, keeper),
  [`POST ${base}/secrets/retire`]: retire(services, keeper),
})

function listSecrets(services: Needs, keeper: Keeper) {
  return async function listSecrets(call: Call) {
    const { customerId } = await keeper(call)
    return json({ secrets: (await services.secrets.list(customerId)).map(toSecret) })
  }
}

const rotateRequest = z.strictObject({
  use: z.enum(['access', 'refresh', 'both'], 'access, refresh or both').default('both'),
  now: z.boolean().default(false),
  dry_run: z.boolean().default(false),
})

function rotate(services: Needs, keeper: Keeper) {
  return async function rotate(call: Call) {
    const { customerId, actor } = await keeper(call)
    const { use, now, dry_run } = await readJson(call, rotateRequest)
    const uses = { access: use !== 'refresh', refresh: use !== 'access' }
    if (dry_run) return json({ would_end: await wouldEnd(services, customerId, uses, now) })
    const origin = auditContextOf(call, services, actor)
    const { versions, effectiveAt } = await services.secrets.rotate(
      customerId,
      uses,
      { now, reason: 'asked' },
      origin,
    )
    return json(present({ versions, effective_at: now ? new Date(effectiveAt) : undefined }))
  }
}

/** Without `now` a rotation ends nothing; of the access secret alone it ends no session. */
async function wouldEnd(
  { secrets }: Needs,
  customerId: string,
  uses: { access: boolean; refresh: boolean },
  now: boolean,
) {
  return now ? secrets.wouldEnd(customerId, uses) : { sessions: 0, tokens: 0 }
}

const retireRequest = z.strictObject({
  use: z.enum(['access', 'refresh'], 'access or refresh'),
  // As far as the column goes.
  version: z.int().min(1).max(2_147_483_647),
})

function retire(services: Needs, keeper: Keeper) {
  return async function retire(call: Call) {
    const { customerId, actor } = await keeper(call)
    const wait = waitOf(call)
    const which = await readJson(call, retireRequest)
    const origin = auditContextOf(call, services, actor)
    const { retiredAt, seq } = await services.retirement.retire(customerId, which, origin)
    await waitForAll(services, wait, seq)
    return json({ ...which, state: 'retired', retired_at: retiredAt })
  }
}

const toSecret = (secret: SecretRow) =>
  present({
    use: secret.use,
    version: secret.version,
    state: secret.state,
    alg: secret.alg,
    created_at: secret.createdAt,
    replaced_at: secret.replacedAt,
    retired_at: secret.retiredAt,
    live_sessions: secret.use === 'refresh' ? secret.liveSessions : undefined,
  })
