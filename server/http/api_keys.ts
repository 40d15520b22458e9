import { z } from 'zod'
import { OAuthError } from '../errors.ts'
import { ANY, SCOPE_TOKEN, SESSIONS, scopesOf } from '../scope.ts'
import { readJson } from './body.ts'
import type { Call, Routes } from './call.ts'
import { account } from './caller.ts'
import { type Deps, originOf } from './context.ts'
import { idOf, present } from './params.ts'
import { json, NO_STORE, noContent } from './respond.ts'
import { name } from './schemas.ts'
import { waitForAll, waitOf } from './wait.ts'

type Needs = Pick<Deps, 'bus' | 'credentials' | 'metrics' | 'proxies' | 'sessions' | 'tokens'>

/** A customer's own API keys. */
export function apiKeyRoutes(deps: Needs): Routes {
  return {
    'GET /api/keys': listKeys(deps),
    'POST /api/keys': createKey(deps),
    'DELETE /api/keys/:id': deleteKey(deps),
  }
}

function listKeys(deps: Needs) {
  return async function listKeys(call: Call) {
    const { client_id } = await account(call, deps)
    const keys = await deps.credentials.list(client_id)
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
function createKey(deps: Needs) {
  return async function createKey(call: Call) {
    const { client_id: customerId, sid } = await account(call, deps)
    const { name, scopes = [ANY], expires_in: expiresIn } = await readJson(call, createKeyRequest)
    if (scopes.some(scope => scope.startsWith('assay:') && scope !== SESSIONS))
      throw new OAuthError(
        'invalid_scope',
        `of the scopes that begin with assay: a key may have only ${SESSIONS}`,
      )
    const scope = [...new Set(scopes)].join(' ')
    const origin = originOf(call, deps, `session:${sid}`)
    const { text, ...key } = await deps.credentials.create({ customerId, name, scope, expiresIn }, origin)
    const body = { ...toApiKey({ ...key, name: name ?? null, scope, lastUsedAt: null }), api_key: text }
    return json(body, 201, NO_STORE)
  }
}

function deleteKey(deps: Needs) {
  return async function deleteKey(call: Call) {
    const { client_id, sid } = await account(call, deps)
    const wait = waitOf(call)
    const seq = await deps.credentials.delete(client_id, idOf(call), originOf(call, deps, `session:${sid}`))
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
