import { readBarrier, stateAge } from '../http/consistency.ts'
import { bearerToken, isBearer } from '../http/credentials.ts'
import type { AppContext, Services } from '../http/env.ts'
import { challenge } from '../http/errors.ts'
import { requestIdFrom } from '../http/request-id.ts'
import { pathOf, queryOf, targetOfContext } from '../http/target.ts'
import type { AccessClaims } from '../jwt/claims.ts'
import { Unavailable } from '../lib/errors.ts'
import type { Tracing } from '../lib/tracing.ts'
import { isWaiting } from '../lib/when-ready.ts'
import type { VerifyResult } from '../tokens/verifier.ts'
import { identityHeaders } from './identity-headers.ts'
import { problemWith, type Rules, rulesOf } from './verify-rules.ts'

type Needs = Pick<Services, 'changeFeed' | 'config' | 'tokens' | 'sessions' | 'metrics' | 'log'>

type HeaderName = 'authorization' | 'cookie' | 'x-request-id' | 'x-assay-require' | 'x-consistency'
type RequestHeaders = { readonly [name in HeaderName]?: string | undefined }

/** /verify itself. With a slash too many the query is still the proxy's own, so its rules must not be dropped. */
const VERIFY = /^\/verify\/*$/

/**
 * The rules in the query of /verify. A path below /verify/ is the client's, appended by a proxy. It is ignored together with
 * its query, which is the client's as well: Envoy appends both.
 */
export function rulesQuery(target: string): string {
  return VERIFY.test(pathOf(target)) ? queryOf(target) : ''
}

/**
 * Answers exactly 200, 401, 403 or 503 (or 500), always with an empty body, which every proxy can pass on. It
 * runs for each request to its users' backends, so it uses no middleware and is synchronous if all data is in
 * memory. Never throws.
 */
export function verify(services: Needs, tracing: Tracing | undefined) {
  function verify(c: AppContext): Response | Promise<Response> {
    const headers = requestHeaders(c)
    const requestId = requestIdFrom(headers['x-request-id'])
    try {
      const rules = rulesOf(rulesQuery(targetOfContext(c)), headers['x-assay-require'])
      if (rules === undefined) return refuseRules(services, requestId)
      const token = tokenFrom(headers, services.config.tokenCookie)
      if (token === undefined) return deny(services, requestId, 401, challenge(), 'token_missing')
      const consistency = headers['x-consistency']
      const verdict = consistency === undefined ? services.tokens.verifyAccessSync(token) : undefined
      return verdict === undefined || isWaiting(verdict)
        ? verifyLater(services, requestId, consistency, token, rules)
        : answer(services, requestId, verdict, rules)
    } catch (error) {
      return fail(services, requestId, error)
    }
  }
  return tracing === undefined ? verify : traced(verify, tracing)
}

/** Node's own headers: a Hono request would look each of them up. */
const requestHeaders = (c: AppContext): RequestHeaders => c.env?.incoming?.headers ?? c.req.header()

const traced =
  (handler: (c: AppContext) => Response | Promise<Response>, tracing: Tracing) => (c: AppContext) =>
    tracing.follow({ method: c.req.method, route: '/verify', headers: requestHeaders(c), quiet: false }, () =>
      handler(c),
    )

/** As `verify`, where something has to be waited for. */
async function verifyLater(
  services: Needs,
  requestId: string,
  consistency: string | undefined,
  token: string,
  rules: Rules,
): Promise<Response> {
  try {
    await readBarrier(consistency, services.changeFeed)
    return answer(services, requestId, await services.tokens.verify(token), rules)
  } catch (error) {
    return fail(services, requestId, error)
  }
}

const INVALID = challenge(
  'invalid_token',
  ', error_description="the access token is malformed, expired or revoked"',
)

function answer(
  services: Needs,
  requestId: string,
  { claims, refusal }: VerifyResult<AccessClaims>,
  rules: Rules,
): Response {
  if (!claims) return deny(services, requestId, 401, INVALID, refusal)
  const problem = problemWith(claims, rules)
  if (problem) return deny(services, requestId, 403, forbidden(problem.scope), problem.reason)
  services.sessions.markConfirmed(claims)
  services.metrics.verified(undefined)
  return empty(200, requestId, services.changeFeed, identityHeaders(claims))
}

const forbidden = (scope?: string) =>
  challenge('insufficient_scope', scope === undefined ? '' : `, scope="${scope}"`)

function refuseRules(services: Needs, requestId: string): Response {
  services.log.warn(
    { requestId },
    'verify: a rule is unknown, repeated or malformed, so every request is denied; fix it in the proxy',
  )
  return deny(services, requestId, 403, forbidden(), 'rule_malformed')
}

function deny(
  { changeFeed, metrics }: Needs,
  requestId: string,
  status: 401 | 403,
  authenticate: string,
  reason: string,
): Response {
  metrics.verified(reason)
  return empty(status, requestId, changeFeed, { 'WWW-Authenticate': authenticate })
}

function fail({ metrics, log }: Needs, requestId: string, error: unknown): Response {
  const status = error instanceof Unavailable ? 503 : 500
  metrics.verified(status === 503 ? 'unavailable' : 'server_error')
  if (error instanceof Unavailable) metrics.unavailable(error.reason)
  // The change feed logs an outage once; here it would be a line per request.
  log[status === 503 ? 'debug' : 'error']({ requestId, err: error }, 'verify failed')
  return empty(status, requestId, undefined, status === 503 ? { 'Retry-After': '1' } : {})
}

/** Pass `changeFeed` only if the answer depends on replicated state. */
function empty(
  status: number,
  requestId: string,
  changeFeed: Needs['changeFeed'] | undefined,
  headers: Record<string, string>,
): Response {
  const age = changeFeed && stateAge(changeFeed)
  if (age !== undefined) headers['X-Assay-Age'] = age
  headers['X-Request-Id'] = requestId
  headers['Content-Length'] = '0'
  headers['Cache-Control'] = 'no-store'
  return new Response(null, { status, headers })
}

/** A Bearer header wins over the cookie, even a malformed one. */
function tokenFrom({ authorization, cookie }: RequestHeaders, name: string | undefined): string | undefined {
  if (isBearer(authorization)) return bearerToken(authorization) ?? ''
  return name === undefined ? undefined : cookieValue(cookie, name)
}

/**
 * The first cookie of this name, as it was sent. Not Hono's `parse`: it unquotes and decodes values, and skips a cookie that it
 * can't read, so that another one of the same name would count than the one that a backend reads.
 */
function cookieValue(header: string | undefined, name: string): string | undefined {
  const pair = header?.split(';').find(one => one.trimStart().startsWith(`${name}=`))
  return pair?.slice(pair.indexOf('=') + 1).trim() || undefined
}
