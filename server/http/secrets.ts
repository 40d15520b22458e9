import { Hono } from 'hono'
import { z } from 'zod'
import type { SecretRow } from '../secrets.ts'
import { account } from './caller.ts'
import { type Ctx, type Deps, type Env, originOf } from './context.ts'
import { present, readJson } from './params.ts'

type Needs = Pick<Deps, 'metrics' | 'proxies' | 'secrets' | 'sessions' | 'tokens'>

/** A customer's own secrets: everything about them but their bytes. */
export function secretRoutes(deps: Needs) {
  return new Hono<Env>().get('/api/secrets', listSecrets(deps)).post('/api/secrets/rotate', rotate(deps))
}

function listSecrets(deps: Needs) {
  return async function listSecrets(c: Ctx) {
    const { client_id } = await account(c, deps)
    return c.json({ secrets: (await deps.secrets.list(client_id)).map(toSecret) })
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
    if (dry_run) return c.json({ would_end: await wouldEnd(deps, customerId, uses, now) })
    const origin = originOf(c, deps, `session:${sid}`)
    const { versions, effectiveAt } = await deps.secrets.rotate(
      customerId,
      uses,
      { now, reason: 'asked' },
      origin,
    )
    return c.json(present({ versions, effective_at: now ? new Date(effectiveAt) : undefined }))
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
