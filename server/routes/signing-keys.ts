import { Hono } from 'hono'
import { z } from 'zod'
import { actAndWait, actorContext } from '../http/act.ts'
import { readJson } from '../http/body.ts'
import type { CustomerEnv } from '../http/env.ts'
import { inTurn } from '../http/in-turn.ts'
import { noQuery, present } from '../http/params.ts'
import { json } from '../http/respond.ts'
import { JWKS_MAX_AGE_SECONDS } from '../keys/public-keys.ts'
import { retireSigningKey } from '../keys/retirement.ts'
import {
  listSigningKeys,
  type Rotated,
  rotateSigningKeys,
  type SecretRow,
  wouldEnd,
} from '../keys/rotation.ts'

const rotateRequest = z.strictObject({
  use: z.enum(['access', 'refresh', 'both'], 'access, refresh or both').default('both'),
  now: z.boolean().default(false),
  dry_run: z.boolean().default(false),
})

const retireRequest = z.strictObject({
  use: z.enum(['access', 'refresh'], 'access or refresh'),
  // The maximum is that of the column.
  version: z.int().min(1).max(2_147_483_647),
})

/** A customer's signing keys: everything about them but their bytes. */
export const signingKeys = new Hono<CustomerEnv>()
  .get('/', noQuery, async c => {
    const keys = await inTurn(c, () => listSigningKeys(c.get('services'), c.get('customerId')))
    return json(c, { secrets: keys.map(serializeSigningKey) })
  })
  .post('/rotate', noQuery, async c => {
    const services = c.get('services')
    const customerId = c.get('customerId')
    const { use, now, dry_run } = await readJson(c, rotateRequest)
    const uses = { access: use !== 'refresh', refresh: use !== 'access' }
    // Without `now` a rotation ends nothing; with `now`, one of the access key alone ends no session.
    if (dry_run && !now) return json(c, { would_end: { sessions: 0, tokens: 0, partial: false } })
    if (dry_run) {
      const would_end = await inTurn(c, () => wouldEnd(services, customerId, uses))
      return json(c, { would_end })
    }
    const rotation = { customerId, uses, now, reason: 'asked' }
    const rotated = await rotateSigningKeys(services, rotation, actorContext(c))
    return json(c, serializeRotated(rotated, now))
  })
  .post('/retire', async c => {
    const { use, version, retiredAt } = await actAndWait(c, async (services, context) => {
      const which = await readJson(c, retireRequest)
      return { ...which, ...(await retireSigningKey(services, c.get('customerId'), which, context)) }
    })
    return json(c, { use, version, state: 'retired', retired_at: retiredAt })
  })

const serializeRotated = ({ versions, next, effectiveAt, acceptedLocallyUntil }: Rotated, now: boolean) =>
  present({
    versions,
    next,
    effective_at: now ? new Date(effectiveAt) : undefined,
    local_verifiers: acceptedLocallyUntil && {
      jwks_max_age: JWKS_MAX_AGE_SECONDS,
      accept_until: new Date(acceptedLocallyUntil),
    },
  })

const serializeSigningKey = (secret: SecretRow) =>
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
