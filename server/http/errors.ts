import { STATUS_CODES } from 'node:http'
import {
  ApiError,
  CodedBodyError,
  ConflictError,
  type ErrorCode,
  RateLimitedError,
  TokenMissing,
  Unavailable,
} from '../lib/errors.ts'
import type { AppContext } from './env.ts'
import { json } from './respond.ts'

/** Routes whose errors have the format of RFC 6749 5.2. All others use RFC 9457. */
const OAUTH = new Set([
  '/token',
  '/issue',
  '/refresh',
  '/introspect',
  '/introspect/batch',
  '/introspect/explain',
  '/revoke',
  '/api/auth/refresh',
])

const SERVER_ERROR = new ApiError(
  'server_error',
  'internal error; an operator can find the cause in the log by the request id',
)

/** Hono's `onError`: the one place that writes errors. It sends no text of an error that isn't ours. */
export function writeError(thrown: unknown, c: AppContext): Response {
  const error = thrown instanceof ApiError ? thrown : SERVER_ERROR
  const { log, metrics } = c.get('services')
  if (error instanceof Unavailable) metrics.unavailable(error.reason)
  if (error.status >= 500)
    log[error.status === 503 ? 'warn' : 'error'](
      { requestId: c.get('requestId'), err: thrown },
      'a request failed',
    )
  return refuse(c, error)
}

function refuse(c: AppContext, error: ApiError, more: Record<string, string> = {}): Response {
  const { status, code } = error
  const headers = { ...errorHeaders(error), ...more }
  const request_id = c.get('requestId')
  if (OAUTH.has(c.req.path))
    return json(c, { error: code, error_description: error.message, request_id }, status, headers)
  const problem = {
    type: 'about:blank',
    title: STATUS_CODES[status],
    status,
    detail: error.message,
    error: code,
    request_id,
    ...(error instanceof ConflictError && error.members),
  }
  return json(c, problem, status, { ...headers, 'Content-Type': 'application/problem+json' })
}

function errorHeaders(error: ApiError): Record<string, string> {
  const headers: Record<string, string> = {}
  if (error.status === 401)
    headers['WWW-Authenticate'] = challenge(error instanceof TokenMissing ? undefined : error.code)
  if (error instanceof CodedBodyError) headers['Accept-Encoding'] = 'identity'
  if (error.status === 503) headers['Retry-After'] = '1'
  if (error instanceof RateLimitedError) Object.assign(headers, rateLimitHeaders(error))
  if (error.code === 'insufficient_scope') headers['WWW-Authenticate'] = challenge(error.code)
  return headers
}

/**
 * RateLimit and RateLimit-Policy are those of draft-ietf-httpapi-ratelimit-headers-10: the quota is used up for the
 * next `t` seconds.
 */
function rateLimitHeaders({ retryAfter, quota }: RateLimitedError): Record<string, string> {
  const retry = { 'Retry-After': String(retryAfter) }
  if (!quota) return retry
  const { name, points, duration } = quota
  return {
    ...retry,
    'RateLimit-Policy': `"${name}";q=${points};w=${duration}`,
    RateLimit: `"${name}";r=0;t=${retryAfter}`,
  }
}

/** RFC 6749 5.2 requires the scheme that the client may use; RFC 6750 3 requires the error of a token. */
export function challenge(code?: ErrorCode, more = ''): string {
  if (code === 'invalid_client') return 'Basic realm="assay", charset="UTF-8"'
  return code === undefined || code === 'invalid_credentials'
    ? 'Bearer realm="assay"'
    : `Bearer realm="assay", error="${code}"${more}`
}

const NOTHING_HERE = 'there is nothing at this path; /openapi.yaml lists every path'

/** 405 with the allowed methods if the path is known, otherwise 404. */
export function refuseUnrouted(c: AppContext, allowed: string[]): Response {
  if (allowed.length === 0) return refuse(c, new ApiError('not_found', NOTHING_HERE))
  const describe = c.req.method === 'OPTIONS' ? preflightRefused : methodRefused
  const error = new ApiError('method_not_allowed', describe(allowed.join(' or ')))
  return refuse(c, error, { Allow: allowed.join(', ') })
}

const methodRefused = (allowed: string) => `method not allowed; use ${allowed}`

/** OPTIONS is nearly always a browser's preflight. docs/decisions/2026-11-30-preflights-end-at-the-gateway.md: we answer none. */
const preflightRefused = (allowed: string) =>
  `method not allowed; use ${allowed}; a page of another origin must call through a gateway that answers preflights (docs/gateways.md)`
