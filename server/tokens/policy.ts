import type { IssueResult } from '../../db/queries/issue.ts'
import type { Defaults, Policy } from '../../db/queries/policy.ts'
import type { Config } from '../config/load.ts'
import { ApiError } from '../lib/errors.ts'

export { NO_POLICY, type Policy, REFRESH_POLICIES, SIGNING_ALGS } from '../../db/queries/policy.ts'

/** The server's settings, which apply to customers without a policy of their own. */
export type Settings = Pick<Config, keyof Defaults>

export const defaultsOf = ({
  accessTokenTtl,
  maxAccessTokenTtl,
  refreshTokenTtl,
  sessionMaxTtl,
  refreshPolicy,
}: Settings): Defaults => ({
  accessTokenTtl,
  maxAccessTokenTtl,
  refreshTokenTtl,
  sessionMaxTtl,
  refreshPolicy,
})

type Lifetime = 'accessTokenTtl' | 'maxAccessTokenTtl' | 'refreshTokenTtl' | 'sessionMaxTtl'

/**
 * A lifetime in a policy must not exceed its bound (the policy's or the server's), which would silently
 * shorten it.
 */
const BOUNDS: [shorter: Lifetime, longer: Lifetime][] = [
  ['accessTokenTtl', 'maxAccessTokenTtl'],
  ['accessTokenTtl', 'refreshTokenTtl'],
  ['maxAccessTokenTtl', 'sessionMaxTtl'],
  ['refreshTokenTtl', 'sessionMaxTtl'],
]

const NAMES: Record<Lifetime, string> = {
  accessTokenTtl: 'access_token_ttl',
  maxAccessTokenTtl: 'max_access_token_ttl',
  refreshTokenTtl: 'refresh_token_ttl',
  sessionMaxTtl: 'session_max_ttl',
}

/** Throws `invalid_request` for a lifetime that exceeds its bound. */
export function assertFits(policy: Policy, settings: Settings): void {
  for (const [shorter, longer] of BOUNDS) {
    const most = policy[longer] ?? settings[longer]
    if ((policy[shorter] ?? 0) > most)
      throw new ApiError(
        'invalid_request',
        `${NAMES[shorter]}: longer than ${NAMES[longer]}, which is ${most} s; shorten it or raise that too`,
      )
  }
}

/** The error for a request that exceeds the customer's policy. */
export const refusedBy = ({ refused, mostTtl, allowedScopes }: IssueResult): ApiError =>
  refused === 'expires_in'
    ? new ApiError('invalid_request', `expires_in: from 1 to ${mostTtl} seconds`)
    : new ApiError('invalid_scope', `this customer's policy allows only these scopes: ${allowedScopes}`)
