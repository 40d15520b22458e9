import { z } from 'zod'
import { accountKeeper, type Keeper } from '../http/auth.ts'
import { readJson } from '../http/body.ts'
import type { Call, Routes } from '../http/call.ts'
import { waitForAll, waitOf } from '../http/consistency.ts'
import { type Deps, originOf } from '../http/env.ts'
import { idempotencyKey, idOf, present } from '../http/params.ts'
import { json, NO_STORE, noContent } from '../http/respond.ts'
import { name } from '../http/schemas.ts'
import { ANY, SCOPE_TOKEN, SESSIONS, scopesOf } from '../jwt/scopes.ts'
import { OAuthError } from '../lib/errors.ts'

type Needs = Pick<Deps, 'bus' | 'credentials' | 'metrics' | 'proxies' | 'sessions' | 'tokens'>

/** A customer's own API keys. */
export const apiKeyRoutes = (deps: Needs): Routes => keptKeys(deps, '/api', accountKeeper(deps))

/** Those of the customer that the keeper names. */
export const keptKeys = (deps: Needs, base: string, keeper: Keeper): Routes => ({
  [`GET ${base}/keys`]: listKeys(deps, keeper),
  [`POST ${base}/keys`]: createKey(deps, keeper),
  [`DELETE ${base}/keys/:id`]: deleteKey(deps, keeper),
})

function listKeys(deps: Needs, keeper: Keeper) {
  return async function listKeys(call: Call) {
    const { customerId } = await keeper(call)
    const keys = await deps.credentials.list(customerId)
    return json({ keys: keys.map(toApiKey) })
  }
}

const TEN_YEARS = 315_360_000

const createKeyRequest = z.strictObject({
  name: name.optional(),
  scopes: z
    .array(z.string().regex(SCOPE_TOKEN, 'a scope: visible ASCII without space, quote or backslash').max(128))
    .max(50)
    .optional(),
  expires_in: z.int().min(1).max(TEN_YEARS, 'seconds, at most ten years').optional(),
})

/** Of our own scopes a key may have but `assay:sessions`: none may ever reach the account. */
function createKey(deps: Needs, keeper: Keeper) {
  return async function createKey(call: Call) {
    const { customerId, actor } = await keeper(call)
    const { name, scopes = [ANY], expires_in: expiresIn } = await readJson(call, createKeyRequest)
    if (scopes.some(scope => scope.startsWith('assay:') && scope !== SESSIONS))
      throw new OAuthError(
        'invalid_scope',
        `of the scopes that begin with assay: a key may have only ${SESSIONS}`,
      )
    const scope = [...new Set(scopes)].join(' ')
    const origin = originOf(call, deps, actor)
    const asked = { customerId, name, scope, expiresIn }
    const { text, ...key } = await deps.credentials.create(asked, origin, idempotencyKey(call))
    const body = { ...toApiKey({ ...key, name: name ?? null, scope, lastUsedAt: null }), api_key: text }
    return json(body, 201, NO_STORE)
  }
}

function deleteKey(deps: Needs, keeper: Keeper) {
  return async function deleteKey(call: Call) {
    const { customerId, actor } = await keeper(call)
    const wait = waitOf(call)
    const seq = await deps.credentials.delete(customerId, idOf(call), originOf(call, deps, actor))
    // Before the 404 too: what an earlier try deleted may not be known everywhere yet.
    await waitForAll(deps, wait, seq)
    if (seq === undefined) throw new OAuthError('not_found', 'no such API key')
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
