import { Hono } from 'hono'
import { z } from 'zod'
import { type ApiKeyRow, createApiKey, deleteApiKey, listApiKeys } from '../clients/api-keys.ts'
import { actAndWait, actorContext } from '../http/act.ts'
import { readJson } from '../http/body.ts'
import type { CustomerEnv } from '../http/env.ts'
import { inTurn } from '../http/in-turn.ts'
import { idempotencyKey, idParam, noQuery, present } from '../http/params.ts'
import { json, noContent } from '../http/respond.ts'
import { distinct, name, wholeSeconds } from '../http/schemas.ts'
import { ANY, SCOPE_TOKEN, SESSIONS, scopesOf } from '../jwt/scopes.ts'
import { ApiError } from '../lib/errors.ts'

const TEN_YEARS_SECONDS = 315_360_000

const createKeyRequest = z.strictObject({
  name: name.optional(),
  scopes: z
    .array(z.string().regex(SCOPE_TOKEN, 'a scope: visible ASCII without space, quote or backslash').max(128))
    .max(50)
    .transform(distinct)
    .optional(),
  expires_in: wholeSeconds(TEN_YEARS_SECONDS, 'ten years').optional(),
})

export const apiKeys = new Hono<CustomerEnv>()
  .get('/', noQuery, async c => {
    const keys = await inTurn(c, () => listApiKeys(c.get('services'), c.get('customerId')))
    return json(c, { keys: keys.map(serializeApiKey) })
  })
  .post('/', noQuery, async c => {
    const { name, scopes = [ANY], expires_in: expiresIn } = await readJson(c, createKeyRequest)
    assertGrantable(scopes)
    const scope = scopes.join(' ')
    const request = { customerId: c.get('customerId'), name, scope, expiresIn }
    const context = actorContext(c)
    const { text, ...key } = await createApiKey(c.get('services'), request, context, idempotencyKey(c))
    const shown = serializeApiKey({ ...key, name: name ?? null, scope, lastUsedAt: null })
    return json(c, { ...shown, api_key: text }, 201)
  })
  .delete('/:id', async c => {
    const seq = await actAndWait(c, (services, context) =>
      deleteApiKey(services, c.get('customerId'), idParam(c), context),
    )
    if (seq === undefined) throw new ApiError('not_found', 'no such API key; check the id')
    return noContent(c)
  })

/** `assay:sessions` is the only scope of ours that a key may have: no key may ever manage the account. */
function assertGrantable(scopes: string[]) {
  if (scopes.some(scope => scope.startsWith('assay:') && scope !== SESSIONS))
    throw new ApiError(
      'invalid_scope',
      `a key can't have this scope; of the scopes that begin with 'assay:' only ${SESSIONS} is allowed`,
    )
}

const serializeApiKey = ({ id, name, scope, createdAt, expiresAt, lastUsedAt }: ApiKeyRow) =>
  present({
    id,
    name,
    scopes: scopesOf(scope),
    created_at: createdAt,
    expires_at: expiresAt,
    last_used_at: lastUsedAt,
  })
