import { z } from 'zod'
import { accountKeeper, type Keeper } from '../http/auth.ts'
import { readJson } from '../http/body.ts'
import type { Call, Routes } from '../http/call.ts'
import { waitForAll, waitOf } from '../http/consistency.ts'
import { auditContextOf, type Services } from '../http/env.ts'
import { idempotencyKey, idOf, present } from '../http/params.ts'
import { json, NO_STORE, noContent } from '../http/respond.ts'
import { name } from '../http/schemas.ts'
import { ANY, SCOPE_TOKEN, SESSIONS, scopesOf } from '../jwt/scopes.ts'
import { ApiError } from '../lib/errors.ts'

type Needs = Pick<Services, 'changeFeed' | 'credentials' | 'metrics' | 'proxies' | 'sessions' | 'tokens'>

/** A customer's own API keys. */
export const apiKeyRoutes = (services: Needs): Routes => keptKeys(services, '/api', accountKeeper(services))

/** Those of the customer that the keeper names. */
export const keptKeys = (services: Needs, base: string, keeper: Keeper): Routes => ({
  [`GET ${base}/keys`]: listKeys(services, keeper),
  [`POST ${base}/keys`]: createKey(services, keeper),
  [`DELETE ${base}/keys/:id`]: deleteKey(services, keeper),
})

function listKeys(services: Needs, keeper: Keeper) {
  return async function listKeys(call: Call) {
    const { customerId } = await keeper(call)
    const keys = await services.credentials.list(customerId)
    return json({ keys: keys.map(toApiKey) })
  }
}

const TEN_YEARS_SECONDS = 315_360_000

const createKeyRequest = z.strictObject({
  name: name.optional(),
  scopes: z
    .array(z.string().regex(SCOPE_TOKEN, 'a scope: visible ASCII without space, quote or backslash').max(128))
    .max(50)
    .optional(),
  expires_in: z.int().min(1).max(TEN_YEARS_SECONDS, 'seconds, at most ten years').optional(),
})

/** Of our own scopes a key may have but `assay:sessions`: none may ever reach the account. */
function createKey(services: Needs, keeper: Keeper) {
  return async function createKey(call: Call) {
    const { customerId, actor } = await keeper(call)
    const { name, scopes = [ANY], expires_in: expiresIn } = await readJson(call, createKeyRequest)
    if (scopes.some(scope => scope.startsWith('assay:') && scope !== SESSIONS))
      throw new ApiError(
        'invalid_scope',
        `of the scopes that begin with assay: a key may have only ${SESSIONS}`,
      )
    const scope = [...new Set(scopes)].join(' ')
    const origin = auditContextOf(call, services, actor)
    const asked = { customerId, name, scope, expiresIn }
    const { text, ...key } = await services.credentials.create(asked, origin, idempotencyKey(call))
    const body = { ...toApiKey({ ...key, name: name ?? null, scope, lastUsedAt: null }), api_key: text }
    return json(body, 201, NO_STORE)
  }
}

function deleteKey(services: Needs, keeper: Keeper) {
  return async function deleteKey(call: Call) {
    const { customerId, actor } = await keeper(call)
    const wait = waitOf(call)
    const seq = await services.credentials.delete(
      customerId,
      idOf(call),
      auditContextOf(call, services, actor),
    )
    // Before the 404 too: what an earlier try deleted may not be known everywhere yet.
    await waitForAll(services, wait, seq)
    if (seq === undefined) throw new ApiError('not_found', 'no such API key')
    return noContent()
  }
}

interface ListedKey {
  id: string
  name: string | null
  scope: string
  createdAt: Date
  expiresAt: Date | null
  lastUsedAt: Date | null
}

const toApiKey = ({ id, name, scope, createdAt, expiresAt, lastUsedAt }: ListedKey) =>
  present({
    id,
    name,
    scopes: scopesOf(scope),
    created_at: createdAt,
    expires_at: expiresAt,
    last_used_at: lastUsedAt,
  })
