import { readBarrier, stateAge } from '../http/consistency.ts'
import { bearerToken, isBearer } from '../http/credentials.ts'
import type { AppContext, Services } from '../http/env.ts'
import { challenge } from '../http/errors.ts'
import { requestIdFrom } from '../http/request-id.ts'
import { pathOf, queryOf, targetOfContext } from '../http/target.ts'
import { Unavailable } from '../lib/errors.ts'
import type { Tracing } from '../lib/tracing.ts'
import { isWaiting } from '../lib/when-ready.ts'
import type { RequestVerdict } from '../tokens/verifier.ts'
import { identityHeaders } from './identity-headers.ts'
import { problemWith, type Rules, rulesOf } from './verify-rules.ts'

type Needs = Pick<Services, 'changeFeed' | 'config' | 'tokens' | 'sessions' | 'metrics' | 'log'>

type HeaderName = 'authorization' | 'cookie' | 'x-request-id' | 'x-assay-require' | 'x-consistency'
type RequestHeaders = { readonly [name in HeaderName]?: string | undefined }

/** /verify itself, even with additional slashes: its query is the proxy's own, so the rules in it must not be dropped. */
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
      const tokens = tokensFrom(headers, services.config.tokenCookie)
      if (tokens.length === 0) return deny(services, requestId, 401, challenge(), 'token_missing')
      const consistency = headers['x-consistency']
      const verdict = consistency === undefined ? services.tokens.verifyRequestSync(tokens) : undefined
      return verdict === undefined || isWaiting(verdict)
        ? verifyLater(services, requestId, consistency, tokens, rules)
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

/** Like `verify`, if it has to wait for something. */
async function verifyLater(
  services: Needs,
  requestId: string,
  consistency: string | undefined,
  tokens: string[],
  rules: Rules,
): Promise<Response> {
  try {
    await readBarrier(consistency, services.changeFeed)
    return answer(services, requestId, await services.tokens.verifyRequest(tokens), rules)
  } catch (error) {
    return fail(services, requestId, error)
  }
}

const INVALID = challenge(
  'invalid_token',
  ', error_description="the access token is malformed, expired or revoked; get a new one"',
)

/** The challenge for any text that is no JWT, for example an API key. */
const NOT_A_TOKEN = challenge(
  'invalid_token',
  ', error_description="this is not an access token; send one from /issue, /token, /refresh or a login"',
)

function answer(
  services: Needs,
  requestId: string,
  { claims, refusal }: RequestVerdict,
  rules: Rules,
): Response {
  if (!claims)
    return deny(services, requestId, 401, refusal === 'token_malformed' ? NOT_A_TOKEN : INVALID, refusal)
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
    'verify: a rule is unknown, repeated, malformed or too long, so every request is denied; fix it in the proxy',
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

/** A Bearer header, even a malformed one, takes precedence over the cookie. */
function tokensFrom({ authorization, cookie }: RequestHeaders, name: string | undefined): string[] {
  if (isBearer(authorization)) return [bearerToken(authorization) ?? '']
  return name === undefined || cookie === undefined ? [] : cookieValues(cookie, name)
}

/** A browser sends several cookies of one name if they were set for different paths or domains. Each costs a verification. */
const MAX_COOKIES = 4

/**
 * The cookies of this name that are not empty, as they were sent. Hono's `parse` is not used: it unquotes and decodes values, so
 * the verified text could differ from the one that a backend reads.
 */
function cookieValues(header: string, name: string): string[] {
  const prefix = `${name}=`
  const values: string[] = []
  let at = header.indexOf(prefix)
  while (at >= 0 && values.length < MAX_COOKIES) {
    const semicolon = header.indexOf(';', at)
    const end = semicolon < 0 ? header.length : semicolon
    const value = beginsPair(header, at) ? header.slice(at + prefix.length, end).trim() : ''
    if (value !== '') values.push(value)
    at = semicolon < 0 ? -1 : header.indexOf(prefix, semicolon)
  }
  return values
}

/** Whether nothing but white space is between `at` and the semicolon before it. */
function beginsPair(header: string, at: number): boolean {
  let before = at - 1
  while (header[before] === ' ' || header[before] === '\t') before--
  return before < 0 || header[before] === ';'
}
