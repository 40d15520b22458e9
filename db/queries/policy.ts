import { type Columns, pick } from '../columns.ts'
import { type AnyPgColumn, type SQL, type SQLWrapper, sql } from '../drizzle.ts'
import { param } from '../prepared.ts'
import { customers, policy } from '../schema/customers.ts'

const NAMES = Object.keys(policy) as (keyof typeof policy)[]

export const POLICY_COLUMNS = pick(customers, ...NAMES)

export { REFRESH_POLICIES, SIGNING_ALGS } from '../schema/customers.ts'

export type Policy = Pick<typeof customers.$inferSelect, keyof typeof policy>

export const NO_POLICY = Object.fromEntries(NAMES.map(name => [name, null])) as Policy

/** The server's settings, for customers that have none of their own. Params of every statement with `policyColumns`. */
export type Defaults = {
  [name in Exclude<keyof Policy, 'scopes' | 'keyMaxAge' | 'tokensPerMinute' | 'signingAlg'>]: NonNullable<
    Policy[name]
  >
}

/**
 * The policy of the customer `c`, completed by the settings; without a customer, the settings alone. The statement that
 * applies a policy reads it, so a policy holds from its commit on, on every replica.
 */
export const policyColumns = (c?: Columns<typeof customers>) => {
  const own = (column: AnyPgColumn | undefined, setting: SQL) =>
    column ? sql`coalesce(${column}, ${setting})` : setting
  return sql`${c?.scopes ?? sql`null::text`} as allowed_scopes,
    ${own(c?.accessTokenTtl, sql`${param('accessTokenTtl')}::int`)} as usual_ttl,
    ${own(c?.maxAccessTokenTtl, sql`${param('maxAccessTokenTtl')}::int`)} as most_ttl,
    ${own(c?.refreshTokenTtl, sql`${param('refreshTokenTtl')}::int`)} as refresh_ttl,
    ${own(c?.sessionMaxTtl, sql`${param('sessionMaxTtl')}::int`)} as session_ttl,
    ${own(c?.refreshPolicy, sql`${param('refreshPolicy')}::text`)} as refresh_policy`
}

/**
 * The scopes of `scope` that `allowed` has, in the order given; all of them if `allowed` is null. No policy restricts
 * Assay's own scopes.
 */
export const allowedScopes = (
  scope: SQLWrapper,
  allowed: SQLWrapper,
) => sql`case when ${allowed} is null then ${scope} else array_to_string(array(
      select one from unnest(string_to_array(${scope}, ' ')) with ordinality as each (one, place)
      where one = any(string_to_array(${allowed}, ' ')) or one like 'assay:%' order by place), ' ') end`
