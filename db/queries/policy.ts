/** What one customer's tokens and sessions may be. Null: as the server's settings have it. Times in seconds. */
export interface Policy {
  /** RFC 6749 3.3: the only ones that its tokens carry, beside Assay's own. */
  scopes: string | null
  accessTokenTtl: number | null
  maxAccessTokenTtl: number | null
  refreshTokenTtl: number | null
  sessionMaxTtl: number | null
  refreshPolicy: RefreshPolicy | null
  /** 0: never rotated by age. */
  keyMaxAge: number | null
}

export type RefreshPolicy = 'until_confirmed' | 'grace_only' | 'strict'

export const NO_POLICY: Policy = {
  scopes: null,
  accessTokenTtl: null,
  maxAccessTokenTtl: null,
  refreshTokenTtl: null,
  sessionMaxTtl: null,
  refreshPolicy: null,
  keyMaxAge: null,
}

/** The columns of a Policy. */
export const POLICY = `scopes, access_token_ttl as "accessTokenTtl", max_access_token_ttl as "maxAccessTokenTtl",
  refresh_token_ttl as "refreshTokenTtl", session_max_ttl as "sessionMaxTtl", refresh_policy as "refreshPolicy",
  key_max_age as "keyMaxAge"`

/** The server's settings, for customers that have none of their own. Parameters of every statement that asks `ruling`. */
export interface Defaults {
  accessTokenTtl: number
  maxAccessTokenTtl: number
  refreshTokenTtl: number
  sessionMaxTtl: number
  refreshPolicy: RefreshPolicy
}

/**
 * What rules the customer whose row is named `c`; without one, who has no policy yet. Read with whatever it decides, in one
 * statement: a policy holds from its commit on, on every replica.
 */
export const ruling = (c?: string) => {
  const own = (column: string, setting: string) => (c ? `coalesce(${c}.${column}, ${setting})` : setting)
  return `${c ? `${c}.scopes` : 'null::text'} as allowed_scopes,
    ${own('access_token_ttl', ':accessTokenTtl::int')} as usual_ttl,
    ${own('max_access_token_ttl', ':maxAccessTokenTtl::int')} as most_ttl,
    ${own('refresh_token_ttl', ':refreshTokenTtl::int')} as refresh_ttl,
    ${own('session_max_ttl', ':sessionMaxTtl::int')} as session_ttl,
    ${own('refresh_policy', ':refreshPolicy::text')} as refresh_policy`
}

/** Of `scope`, what `allowed` has, in the order given; all of it where `allowed` is null. Assay's own scopes are no policy's. */
export const narrowed = (
  scope: string,
  allowed: string,
) => `case when ${allowed} is null then ${scope} else array_to_string(array(
      select one from unnest(string_to_array(${scope}, ' ')) with ordinality as each (one, place)
      where one = any(string_to_array(${allowed}, ' ')) or one like 'assay:%' order by place), ' ') end`
