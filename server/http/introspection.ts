import { Hono } from 'hono'
import { z } from 'zod'
import type { AccessClaims, RefreshClaims } from '../claims.ts'
import type { Caller } from '../credentials.ts'
import { OAuthError } from '../errors.ts'
import { scopesOf } from '../scope.ts'
import { authenticated, bearerOf, presentedBy } from './caller.ts'
import type { Ctx, Deps, Env } from './context.ts'
import { BATCH_LIMIT, present, readForm, readJson } from './params.ts'

type Needs = Pick<Deps, 'credentials' | 'sessions' | 'tokens' | 'metrics'>

/** RFC 7662. */
export function introspectionRoutes(deps: Needs) {
  return new Hono<Env>()
    .post('/introspect', introspect(deps))
    .get('/introspect', introspectSelf(deps))
    .post('/introspect/batch', introspectBatch(deps))
}

/** Byte for byte the same for everything that is not for this caller to know. */
const INACTIVE = { active: false }

function introspect(deps: Needs) {
  return async function introspect(c: Ctx) {
    const form = await readForm(c)
    const caller = await authenticated(deps.credentials, presentedBy(c, form))
    const token = form.get('token')
    if (token === undefined) throw new OAuthError('invalid_request', 'token is missing')
    return answer(c, await activity(deps, caller, token))
  }
}

const batchRequest = z.strictObject({ tokens: z.array(z.string()).max(100) })

function introspectBatch(deps: Needs) {
  return async function introspectBatch(c: Ctx) {
    const caller = await authenticated(deps.credentials, presentedBy(c, new Map()))
    const { tokens } = await readJson(c, batchRequest, BATCH_LIMIT)
    return answer(c, { tokens: await Promise.all(tokens.map(token => activity(deps, caller, token))) })
  }
}

/** Dovecot's way: the token is the caller. A 401 would be an outage to it, so a bad token is inactive here too. */
function introspectSelf(deps: Needs) {
  return async function introspectSelf(c: Ctx) {
    const token = bearerOf(c.req.header('authorization'))
    const claims = token === undefined ? undefined : await verified(deps, token)
    return answer(c, claims ? activeAccess(claims) : INACTIVE)
  }
}

async function verified(
  { tokens, metrics, sessions }: Needs,
  token: string,
): Promise<AccessClaims | undefined> {
  const { claims, refusal } = await tokens.verify(token)
  metrics.verified(refusal)
  if (claims) sessions.noteSeen(claims)
  return claims
}

/** A refresh token is active to its own customer only: many servers let in whatever token is called active. */
async function activity(deps: Needs, caller: Caller, token: string): Promise<object> {
  const access = await verified(deps, token)
  if (access) return mayKnow(caller, access) ? activeAccess(access) : INACTIVE
  if (caller.kind !== 'api_key') return INACTIVE
  const { claims } = await deps.tokens.verifyRefresh(token)
  if (!claims || !mayKnow(caller, claims)) return INACTIVE
  const session = await deps.sessions.isRefreshable(claims)
  return session ? activeRefresh(claims, session.scope) : INACTIVE
}

const mayKnow = (caller: Caller, { client_id }: { client_id: string }) =>
  caller.kind === 'resource_server' || caller.customerId === client_id

const activeAccess = ({ ep: _, gen: __, scope = '', ...claims }: AccessClaims) => ({
  active: true,
  ...claims,
  scope,
  scopes: scopesOf(scope),
  token_type: 'Bearer',
})

const activeRefresh = ({ gen: _, ...claims }: RefreshClaims, scope: string) =>
  present({ active: true, ...claims, scope, scopes: scopesOf(scope) })

const answer = (c: Ctx, body: object) => c.json(body, 200, { 'Cache-Control': 'no-store' })
