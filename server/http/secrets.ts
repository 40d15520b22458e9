import { Hono } from 'hono'
import { z } from 'zod'
import type { SecretRow } from '../secrets.ts'
import { account } from './caller.ts'
import { type Ctx, type Deps, type Env, originOf } from './context.ts'
import { present, readJson } from './params.ts'
import { json } from './respond.ts'
import { waitForAll, waitOf } from './wait.ts'

type Needs = Pick<Deps, 'bus' | 'metrics' | 'proxies' | 'retirement' | 'secrets' | 'sessions' | 'tokens'>

/** A customer's own secrets: everything about them but their bytes. */
export function secretRoutes(deps: Needs) {
  return new Hono<Env>()
    .get('/api/secrets', listSecrets(deps))
    .post('/api/secrets/rotate', rotate(deps))
    .post('/api/secrets/retire', retire(deps))
}

function listSecrets(deps: Needs) {
  return async function listSecrets(c: Ctx) {
    const { client_id } = await account(c, deps)
    return json(c, { secrets: (await deps.secrets.list(client_id)).map(toSecret) })
  }
}

const rotateRequest = z.strictObject({
  use: z.enum(['access', 'refresh', 'both'], 'access, refresh or both').default('both'),
  now: z.boolean().default(false),
  dry_run: z.boolean().default(false),
})

function rotate(deps: Needs) {
  return async function rotate(c: Ctx) {
    const { client_id: customerId, sid } = await account(c, deps)
    const { use, now, dry_run } = await readJson(c, rotateRequest)
    const uses = { access: use !== 'refresh', refresh: use !== 'access' }
    if (dry_run) return json(c, { would_end: await wouldEnd(deps, customerId, uses, now) })
    const origin = originOf(c, deps, `session:${sid}`)
    const { versions, effectiveAt } = await deps.secrets.rotate(
      customerId,
      uses,
      { now, reason: 'asked' },
      origin,
    )
    return json(c, present({ versions, effective_at: now ? new Date(effectiveAt) : undefined }))
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

function retire(deps: Needs) {
  return async function retire(c: Ctx) {
    const { client_id: customerId, sid } = await account(c, deps)
    const wait = waitOf(c)
    const which = await readJson(c, retireRequest)
    const origin = originOf(c, deps, `session:${sid}`)
    const { retiredAt, seq } = await deps.retirement.retire(customerId, which, origin)
    await waitForAll(deps, wait, seq)
    return json(c, { ...which, state: 'retired', retired_at: retiredAt })
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
