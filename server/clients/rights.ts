import { ApiError } from '../lib/errors.ts'

/** The rights that an operator can give to a service. */
export const RIGHTS = [
  'issue',
  'refresh',
  'revoke',
  'introspect',
  'sessions',
  'rotate',
  'create',
  'disable',
  'reset',
] as const

export type Right = (typeof RIGHTS)[number]

const CUSTOMER = '/admin/customers/:customer'

/**
 * The right that a service needs for each route. Each grant of /token has a row of its own. Every other route refuses services.
 */
export const RIGHT_OF_ROUTE: Readonly<Record<string, Right>> = {
  'POST /issue': 'issue',
  'POST /token client_credentials': 'issue',
  'POST /token refresh_token': 'refresh',
  'POST /refresh': 'refresh',
  'POST /api/auth/refresh': 'refresh',
  'POST /revoke': 'revoke',
  'POST /introspect': 'introspect',
  'POST /introspect/batch': 'introspect',
  'POST /introspect/explain': 'introspect',
  [`GET ${CUSTOMER}/sessions`]: 'sessions',
  [`DELETE ${CUSTOMER}/sessions/:id`]: 'sessions',
  [`POST ${CUSTOMER}/subjects/revoke`]: 'sessions',
  [`POST ${CUSTOMER}/revoke`]: 'sessions',
  [`GET ${CUSTOMER}/secrets`]: 'rotate',
  [`POST ${CUSTOMER}/secrets/rotate`]: 'rotate',
  [`POST ${CUSTOMER}/secrets/retire`]: 'rotate',
  'POST /admin/customers': 'create',
  [`POST ${CUSTOMER}/disable`]: 'disable',
  [`POST ${CUSTOMER}/enable`]: 'disable',
  [`POST ${CUSTOMER}/password-reset`]: 'reset',
  [`POST ${CUSTOMER}/email-verification`]: 'reset',
  [`POST ${CUSTOMER}/email-change`]: 'reset',
}

/** `unauthorized_client` is the code of RFC 6749 5.2, `insufficient_scope` that of RFC 6750 3.1. */
type Refusal = 'unauthorized_client' | 'insufficient_scope'

/** Throws `refusal` unless a service with these rights may use the route. */
export function assertRight({ may }: { may: readonly Right[] }, route: string, refusal: Refusal) {
  const right = RIGHT_OF_ROUTE[route]
  if (right === undefined)
    throw new ApiError(refusal, "services can't make this request; use an API key or an operator token")
  if (!may.includes(right))
    throw new ApiError(refusal, `this service lacks the right ${right}; an operator can add it`)
}
