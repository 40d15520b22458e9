import type { Handler } from 'hono'
import { Hono } from 'hono'
import type { AccessClaims } from '../claims.ts'
import { Unavailable } from '../errors.ts'
import { identityHeaders } from '../identity.ts'
import { bearerOf, isBearer } from './caller.ts'
import { ageOf, type Ctx, consistent, type Deps, type Env, requestIdOf } from './context.ts'
import { challenge } from './errors.ts'
import { problemWith, type Rules, rulesOf } from './rules.ts'

type Needs = Pick<Deps, 'bus' | 'config' | 'tokens' | 'sessions' | 'metrics' | 'log'>

/** Forward auth. It stands alone, without middleware: it is on every request of its users. */
export function verifyRoutes(deps: Needs) {
  return new Hono<Env>().all('/verify', verify(deps, true)).all('/verify/*', verify(deps, false))
}

/**
 * Exactly 200, 401, 403 or 503, always with an empty body, which is what proxies can hand on. The request's body is never
 * read. On sub-paths the query is the client's own (Envoy appends it), so there it says nothing.
 */
function verify(deps: Needs, exact: boolean): Handler<Env> {
  return async function verify(c) {
    const requestId = requestIdOf(c)
    try {
      const rules = rulesOf(exact ? c.req.url : '', c.req.header('x-assay-require'))
      if (rules === undefined) return misruled(deps, requestId)
      const token = tokenOf(c, deps.config.tokenCookie)
      if (token === undefined) return deny(deps, requestId, 401, challenge(), 'token_missing')
      await consistent(c, deps.bus)
      const { claims, refusal } = await deps.tokens.verify(token)
      if (refusal) return deny(deps, requestId, 401, INVALID, refusal)
      return answer(deps, requestId, claims, rules)
    } catch (error) {
      return failed(deps, requestId, error)
    }
  }
}

const INVALID = challenge(
  'invalid_token',
  ', error_description="the access token is malformed, expired or revoked"',
)

function answer(deps: Needs, requestId: string, claims: AccessClaims, rules: Rules): Response {
  const problem = problemWith(claims, rules)
  if (problem) return deny(deps, requestId, 403, forbidden(problem.scope), problem.reason)
  deps.sessions.noteSeen(claims)
  deps.metrics.verified(undefined)
  return empty(200, requestId, { ...identityHeaders(claims), ...ageOf(deps.bus) })
}

const forbidden = (scope?: string) =>
  challenge('insufficient_scope', scope === undefined ? '' : `, scope="${scope}"`)

function misruled(deps: Needs, requestId: string): Response {
  deps.log.warn(
    { requestId },
    'verify: a rule is unknown, repeated or malformed; mend it in the proxy: all is denied',
  )
  return deny(deps, requestId, 403, forbidden(), 'rule_malformed')
}

function deny(
  { bus, metrics }: Needs,
  requestId: string,
  status: 401 | 403,
  authenticate: string,
  reason: string,
): Response {
  metrics.verified(reason)
  return empty(status, requestId, { 'WWW-Authenticate': authenticate, ...ageOf(bus) })
}

function failed({ metrics, log }: Needs, requestId: string, error: unknown): Response {
  const status = error instanceof Unavailable ? 503 : 500
  metrics.verified(status === 503 ? 'unavailable' : 'server_error')
  if (error instanceof Unavailable) metrics.unavailable(error.reason)
  // An outage is told by the bus, once; here it would be a line per request.
  log[status === 503 ? 'debug' : 'error']({ requestId, err: error }, 'verify failed')
  return empty(status, requestId, status === 503 ? { 'Retry-After': '1' } : {})
}

const empty = (status: number, requestId: string, headers: Record<string, string>) =>
  new Response(null, { status, headers: { ...headers, 'X-Request-Id': requestId, 'Content-Length': '0' } })

/** A Bearer header wins over the cookie, even a malformed one. */
function tokenOf(c: Ctx, cookie: string | undefined): string | undefined {
  const authorization = c.req.header('authorization')
  if (isBearer(authorization)) return bearerOf(authorization) ?? ''
  return cookie === undefined ? undefined : cookieOf(c.req.header('cookie'), cookie)
}

function cookieOf(header: string | undefined, name: string): string | undefined {
  const pair = header?.split(';').find(one => one.trimStart().startsWith(`${name}=`))
  return pair?.slice(pair.indexOf('=') + 1).trim() || undefined
}
