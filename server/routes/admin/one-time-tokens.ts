import { Hono } from 'hono'
import { z } from 'zod'
import { createOneTimeToken, type OneTimeToken, type Purpose } from '../../customers/one-time-tokens.ts'
import { actorContext } from '../../http/act.ts'
import { readJson } from '../../http/body.ts'
import type { AppContext, OperatorEnv } from '../../http/env.ts'
import { customerParam, noQuery } from '../../http/params.ts'
import { json } from '../../http/respond.ts'
import { email } from '../account.ts'

const DEFAULT_TTL_SECONDS = 3_600
const MIN_TTL_SECONDS = 300
const MAX_TTL_SECONDS = 86_400

const TTL = `whole seconds, from ${MIN_TTL_SECONDS} (5 minutes) to ${MAX_TTL_SECONDS} (a day)`
const ttl = z.int(TTL).min(MIN_TTL_SECONDS, TTL).max(MAX_TTL_SECONDS, TTL).default(DEFAULT_TTL_SECONDS)

const tokenRequest = z.strictObject({ expires_in: ttl })
const changeRequest = z.strictObject({ email, expires_in: ttl })

/** One-time tokens for a customer's account. Assay sends no mail: the operator delivers them. */
export const customerTokens = new Hono<OperatorEnv>()
  .post('/:customer/password-reset', noQuery, async c => {
    const { expires_in } = await readJson(c, tokenRequest)
    return create(c, { purpose: 'password_reset', expiresIn: expires_in })
  })
  .post('/:customer/email-verification', noQuery, async c => {
    const { expires_in } = await readJson(c, tokenRequest)
    return create(c, { purpose: 'email_verification', expiresIn: expires_in })
  })
  .post('/:customer/email-change', noQuery, async c => {
    const { email, expires_in } = await readJson(c, changeRequest)
    return create(c, { purpose: 'email_change', email, expiresIn: expires_in })
  })

async function create(
  c: AppContext & Parameters<typeof actorContext>[0],
  request: { purpose: Purpose; email?: string; expiresIn: number },
) {
  const context = actorContext(c)
  const asked = { ...request, customerId: customerParam(c) }
  return json(c, serializeToken(await createOneTimeToken(c.get('services'), asked, context)), 201)
}

const serializeToken = ({ token, email, expiresAt }: OneTimeToken) => ({
  token,
  email,
  expires_at: expiresAt,
})
