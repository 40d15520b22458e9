import { bearerOf, isBearer } from '../http/auth.ts'
import { type Reply, requestIdFrom, type Target } from '../http/call.ts'
import { ageOf, consistent, type Services } from '../http/env.ts'
import { challenge } from '../http/errors.ts'
import type { AccessClaims } from '../jwt/claims.ts'
import { Unavailable } from '../lib/errors.ts'
import { isWaiting } from '../lib/when-ready.ts'
import type { VerifyResult } from '../tokens/verifier.ts'
import { identityHeaders } from './identity-headers.ts'
import { problemWith, type Rules, rulesOf } from './verify-rules.ts'

type Needs = Pick<Services, 'changeFeed' | 'config' | 'tokens' | 'sessions' | 'metrics' | 'log'>

/** What is looked at of a request: some of its headers, by their names in lower case. */
export type Asked = Readonly<
  Partial<Record<'authorization' | 'cookie' | 'x-request-id' | 'x-assay-require' | 'x-consistency', string>>
>

/**
 * Exactly 200, 401, 403 or 503 (or 500), always with an empty body, which is what proxies can hand on. `query`: rules, as far
 * as the proxy wrote them. Answers at once when what is needed is in memory. Never throws.
 */
export type Verify = (query: string, asked: Asked) => Reply | Promise<Reply>

/** /verify itself. With a slash too many the query is still the proxy's own, so its rules must not be dropped. */
const VERIFY = /^\/verify\/*$/

/**
 * Returns the query that holds the rules of a request to /verify, and undefined for any other request. A path below /verify/
 * is the client's, appended by a proxy. It is ignored together with its query, which is the client's as well: Envoy appends
 * both.
 */
export function rulesAskedBy({ path, query }: Target): string | undefined {
  if (VERIFY.test(path)) return query
  return path.startsWith('/verify/') ? '' : undefined
}

/** It is on every request of its users: it stands alone, without middleware, and awaits nothing that it needn't. */
export const verifier = (services: Needs): Verify =>
  function verify(query, asked) {
    const requestId = requestIdFrom(asked['x-request-id'])
    try {
      const rules = rulesOf(query, asked['x-assay-require'])
      if (rules === undefined) return misruled(services, requestId)
      const token = tokenOf(asked, services.config.tokenCookie)
      if (token === undefined) return deny(services, requestId, 401, challenge(), 'token_missing')
      const strict = asked['x-consistency']
      const verdict = strict === undefined ? services.tokens.verifyAccessSync(token) : undefined
      return verdict === undefined || isWaiting(verdict)
        ? later(services, requestId, strict, token, rules)
        : replyTo(services, requestId, verdict, rules)
    } catch (error) {
      return failed(services, requestId, error)
    }
  }

/** As `verify`, where something has to be waited for. */
async function later(
  services: Needs,
  requestId: string,
  strict: string | undefined,
  token: string,
  rules: Rules,
): Promise<Reply> {
  try {
    await consistent(strict, services.changeFeed)
    return replyTo(services, requestId, await services.tokens.verify(token), rules)
  } catch (error) {
    return failed(services, requestId, error)
  }
}

const INVALID = challenge(
  'invalid_token',
  ', error_description="the access token is malformed, expired or revoked"',
)

function replyTo(
  services: Needs,
  requestId: string,
  { claims, refusal }: VerifyResult<AccessClaims>,
  rules: Rules,
): Reply {
  if (!claims) return deny(services, requestId, 401, INVALID, refusal)
  const problem = problemWith(claims, rules)
  if (problem) return deny(services, requestId, 403, forbidden(problem.scope), problem.reason)
  services.sessions.markConfirmed(claims)
  services.metrics.verified(undefined)
  return empty(200, requestId, services.changeFeed, identityHeaders(claims))
}

const forbidden = (scope?: string) =>
  challenge('insufficient_scope', scope === undefined ? '' : `, scope="${scope}"`)

function misruled(services: Needs, requestId: string): Reply {
  services.log.warn(
    { requestId },
    'verify: a rule is unknown, repeated or malformed; mend it in the proxy: all is denied',
  )
  return deny(services, requestId, 403, forbidden(), 'rule_malformed')
}

function deny(
  { changeFeed, metrics }: Needs,
  requestId: string,
  status: 401 | 403,
  authenticate: string,
  reason: string,
): Reply {
  metrics.verified(reason)
  return empty(status, requestId, changeFeed, { 'WWW-Authenticate': authenticate })
}

function failed({ metrics, log }: Needs, requestId: string, error: unknown): Reply {
  const status = error instanceof Unavailable ? 503 : 500
  metrics.verified(status === 503 ? 'unavailable' : 'server_error')
  if (error instanceof Unavailable) metrics.unavailable(error.reason)
  // An outage is told by the change feed, once; here it would be a line per request.
  log[status === 503 ? 'debug' : 'error']({ requestId, err: error }, 'verify failed')
  return empty(status, requestId, undefined, status === 503 ? { 'Retry-After': '1' } : {})
}

/** `changeFeed`: what the answer rests on, if it rests on any state. */
function empty(
  status: number,
  requestId: string,
  changeFeed: Needs['changeFeed'] | undefined,
  headers: Record<string, string>,
): Reply {
  const age = changeFeed && ageOf(changeFeed)
  if (age !== undefined) headers['X-Assay-Age'] = age
  headers['X-Request-Id'] = requestId
  headers['Content-Length'] = '0'
  return { status, headers, body: '' }
}

/** A Bearer header wins over the cookie, even a malformed one. */
function tokenOf({ authorization, cookie }: Asked, name: string | undefined): string | undefined {
  if (isBearer(authorization)) return bearerOf(authorization) ?? ''
  return name === undefined ? undefined : cookieOf(cookie, name)
}

function cookieOf(header: string | undefined, name: string): string | undefined {
  const pair = header?.split(';').find(one => one.trimStart().startsWith(`${name}=`))
  return pair?.slice(pair.indexOf('=') + 1).trim() || undefined
}
