import { z } from 'zod'
import { readJson } from '../../http/body.ts'
import type { Call, Routes } from '../../http/call.ts'
import { auditContextOf, type Services } from '../../http/env.ts'
import { present } from '../../http/params.ts'
import { SCOPE_TOKEN } from '../../jwt/scopes.ts'
import { NO_POLICY, type Policy } from '../../tokens/policy.ts'
import { CUSTOMER, changeOf, withTag } from './customers.ts'
import { operator } from './operator.ts'

type Needs = Pick<Services, 'customerAdmin' | 'operators' | 'proxies'>

/** What one customer's tokens and sessions may be, where that is not what the server's settings say. */
export const policyRoutes = (services: Needs): Routes => ({ [`PUT ${CUSTOMER}/policy`]: setPolicy(services) })

const HOUR_SECONDS = 3_600
const DAY_SECONDS = 86_400
const TEN_YEARS_SECONDS = 3650 * DAY_SECONDS

const upTo = (most: number, inWords: string) => {
  const message = `whole seconds, from 1 to ${most} (${inWords})`
  return z.int(message).min(1, message).max(most, message).optional()
}

/** Ages are looked at once a minute, and each rotation leaves a version that must retire: nobody means seconds. */
const AGE = `whole seconds, from ${HOUR_SECONDS} (an hour) to ${TEN_YEARS_SECONDS} (ten years); 0: never`
const age = z
  .int(AGE)
  .refine(seconds => seconds === 0 || (seconds >= HOUR_SECONDS && seconds <= TEN_YEARS_SECONDS), AGE)
  .optional()

const RESERVED_SCOPE = /^(?:\*$|assay:)/

const policyScope = z
  .string()
  .max(128)
  .regex(SCOPE_TOKEN, 'a scope: visible ASCII without space, quote or backslash')
  .refine(
    scope => !RESERVED_SCOPE.test(scope),
    'a scope of your own: neither * nor one that begins with assay:',
  )

const policyRequest = z.strictObject({
  scopes: z.array(policyScope).min(1).max(50).optional(),
  access_token_ttl: upTo(DAY_SECONDS, 'a day'),
  max_access_token_ttl: upTo(DAY_SECONDS, 'a day'),
  refresh_token_ttl: upTo(TEN_YEARS_SECONDS, 'ten years'),
  session_max_ttl: upTo(TEN_YEARS_SECONDS, 'ten years'),
  refresh_policy: z
    .enum(['until_confirmed', 'grace_only', 'strict'], 'until_confirmed, grace_only or strict')
    .optional(),
  key_max_age: age,
})

/** The whole of it: what the request leaves out is as the server's settings have it. */
function setPolicy(services: Needs) {
  return async function setPolicy(call: Call) {
    const actor = operator(call, services)
    const change = changeOf(call)
    const policy = policyOf(await readJson(call, policyRequest))
    return withTag(
      await services.customerAdmin.setPolicy(change, policy, auditContextOf(call, services, actor)),
    )
  }
}

const policyOf = (asked: z.infer<typeof policyRequest>): Policy => ({
  ...NO_POLICY,
  ...present({
    scopes: asked.scopes && [...new Set(asked.scopes)].join(' '),
    accessTokenTtl: asked.access_token_ttl,
    maxAccessTokenTtl: asked.max_access_token_ttl,
    refreshTokenTtl: asked.refresh_token_ttl,
    sessionMaxTtl: asked.session_max_ttl,
    refreshPolicy: asked.refresh_policy,
    keyMaxAge: asked.key_max_age,
  }),
})
