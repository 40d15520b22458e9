import type { Defaults, Policy } from '../../db/queries/policy.ts'
import type { Config } from '../config/load.ts'
import { ApiError } from '../lib/errors.ts'

export { NO_POLICY, type Policy } from '../../db/queries/policy.ts'

/** What the server's settings say of every customer that has no policy of its own. */
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

/** What a policy sets must not be longer than what bounds it, which may be the server's: it would be cut in silence. */
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

/** Throws `invalid_request` for a lifetime that another would cut. */
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

/** To who asked for more than its customer's policy lets anybody have. */
export const refusedBy = ({ refused, mostTtl, allowedScopes }: Refused): ApiError =>
  refused === 'expires_in'
    ? new ApiError('invalid_request', `expires_in: from 1 to ${mostTtl} seconds`)
    : new ApiError('invalid_scope', `this customer's tokens carry only these scopes: ${allowedScopes}`)

export interface Refused {
  refused: 'expires_in' | 'scope' | null
  mostTtl: number
  allowedScopes: string | null
}
