import { STATUS_CODES } from 'node:http'
import {
  ApiError,
  ConflictError,
  type ErrorCode,
  RateLimitedError,
  TokenMissing,
  Unavailable,
} from '../lib/errors.ts'
import type { Call, Reply } from './call.ts'
import type { Services } from './env.ts'
import { json, NO_STORE } from './respond.ts'

/** Where RFC 6749 5.2 says how an error looks; everywhere else RFC 9457 does. */
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
  'something went wrong here; the log has more under the request id',
)

/** The one place that writes errors. It can't itself fail, and sends no word of an error that isn't ours. */
export function writeError(
  { log, metrics }: Pick<Services, 'log' | 'metrics'>,
  call: Call,
  thrown: unknown,
): Reply {
  const error = thrown instanceof ApiError ? thrown : SERVER_ERROR
  const { requestId } = call
  if (error instanceof Unavailable) metrics.unavailable(error.reason)
  if (error.status >= 500)
    log[error.status === 503 ? 'warn' : 'error']({ requestId, err: thrown }, 'a request failed')
  return refusal(call, error)
}

function refusal(call: Call, error: ApiError, more: Record<string, string> = {}): Reply {
  const { requestId } = call
  const headers = { ...headersOf(error), ...more }
  const { status } = error
  if (OAUTH.has(call.path))
    return json(
      { error: error.code, error_description: error.message, request_id: requestId },
      status,
      headers,
    )
  const problem = {
    type: 'about:blank',
    title: STATUS_CODES[error.status],
    status,
    detail: error.message,
    error: error.code,
    request_id: requestId,
    ...(error instanceof ConflictError && error.members),
  }
  return json(problem, status, { ...headers, 'Content-Type': 'application/problem+json' })
}

function headersOf(error: ApiError): Record<string, string> {
  const headers: Record<string, string> = { ...NO_STORE }
  if (error.status === 401)
    headers['WWW-Authenticate'] = challenge(error instanceof TokenMissing ? undefined : error.code)
  if (error.status === 503) headers['Retry-After'] = '1'
  if (error instanceof RateLimitedError) headers['Retry-After'] = String(error.retryAfter)
  if (error.code === 'insufficient_scope') headers['WWW-Authenticate'] = challenge(error.code)
  return headers
}

/** RFC 6749 5.2 wants the scheme that the client may use; RFC 6750 3 names what is wrong with a token. */
export function challenge(code?: ErrorCode, more = ''): string {
  if (code === 'invalid_client') return 'Basic realm="assay", charset="UTF-8"'
  return code === undefined || code === 'invalid_credentials'
    ? 'Bearer realm="assay"'
    : `Bearer realm="assay", error="${code}"${more}`
}

/** No route: 405 with what is allowed where the path is known, 404 elsewhere. */
export function noRoute(call: Call, allowed: string[]): Reply {
  if (allowed.length === 0)
    return refusal(
      call,
      new ApiError('not_found', 'there is nothing at this path; /openapi.yaml lists what there is'),
    )
  const error = new ApiError('method_not_allowed', `use ${allowed.join(' or ')} here`)
  return refusal(call, error, { Allow: allowed.join(', ') })
}
