import { Hono } from 'hono'
import { z } from 'zod'
import { setPolicy } from '../../customers/admin.ts'
import { actorContext } from '../../http/act.ts'
import { readJson } from '../../http/body.ts'
import type { OperatorEnv } from '../../http/env.ts'
import { noQuery, present } from '../../http/params.ts'
import { distinct, listOf, wholeSeconds } from '../../http/schemas.ts'
import { SCOPE_TOKEN } from '../../jwt/scopes.ts'
import { NO_POLICY, type Policy, REFRESH_POLICIES, SIGNING_ALGS } from '../../tokens/policy.ts'
import { conditionalChange, jsonWithETag } from './customers.ts'

const HOUR_SECONDS = 3_600
const DAY_SECONDS = 86_400
const TEN_YEARS_SECONDS = 3650 * DAY_SECONDS

/** At least an hour: ages are checked once a minute, and each rotation leaves a version that must retire. */
const AGE = `whole seconds, from ${HOUR_SECONDS} (an hour) to ${TEN_YEARS_SECONDS} (ten years); 0: never`
const age = z
  .int(AGE)
  .refine(seconds => seconds === 0 || (seconds >= HOUR_SECONDS && seconds <= TEN_YEARS_SECONDS), AGE)
  .optional()

const MAX_PER_MINUTE = 1_000_000_000
const PER_MINUTE = `a whole number from 1 to ${MAX_PER_MINUTE}`

const RESERVED_SCOPE = /^(?:\*$|assay:)/

const policyScope = z
  .string()
  .max(128)
  .regex(SCOPE_TOKEN, 'a scope: visible ASCII without space, quote or backslash')
  .refine(
    scope => !RESERVED_SCOPE.test(scope),
    "must be a scope of your own: not *, and not one that begins with 'assay:'",
  )

const policyRequest = z.strictObject({
  scopes: listOf(policyScope, { min: 1, max: 50 }).transform(distinct).optional(),
  access_token_ttl: wholeSeconds(DAY_SECONDS, 'a day').optional(),
  max_access_token_ttl: wholeSeconds(DAY_SECONDS, 'a day').optional(),
  refresh_token_ttl: wholeSeconds(TEN_YEARS_SECONDS, 'ten years').optional(),
  session_max_ttl: wholeSeconds(TEN_YEARS_SECONDS, 'ten years').optional(),
  refresh_policy: z.enum(REFRESH_POLICIES, 'until_confirmed, grace_only, strict or reusable').optional(),
  key_max_age: age,
  tokens_per_minute: z.int(PER_MINUTE).min(1, PER_MINUTE).max(MAX_PER_MINUTE, PER_MINUTE).optional(),
  signing_alg: z.enum(SIGNING_ALGS, 'HS512, EdDSA, ES256 or RS256').optional(),
})

/**
 * Limits on one customer's tokens and sessions. A request replaces the whole policy: for members that it omits, the server's
 * settings apply.
 */
export const policies = new Hono<OperatorEnv>().put('/:customer/policy', noQuery, async c => {
  const change = conditionalChange(c)
  const policy = toPolicy(await readJson(c, policyRequest))
  return jsonWithETag(c, await setPolicy(c.get('services'), change, policy, actorContext(c)))
})

const toPolicy = (request: z.infer<typeof policyRequest>): Policy => ({
  ...NO_POLICY,
  ...present({
    scopes: request.scopes?.join(' '),
    accessTokenTtl: request.access_token_ttl,
    maxAccessTokenTtl: request.max_access_token_ttl,
    refreshTokenTtl: request.refresh_token_ttl,
    sessionMaxTtl: request.session_max_ttl,
    refreshPolicy: request.refresh_policy,
    keyMaxAge: request.key_max_age,
    tokensPerMinute: request.tokens_per_minute,
    signingAlg: request.signing_alg,
  }),
})
