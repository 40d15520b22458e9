import { Hono } from 'hono'
import { z } from 'zod'
import { requestEmailChange, resetPassword, verifyEmail } from '../customers/one-time-tokens.ts'
import { actorContext } from '../http/act.ts'
import { requireAccount } from '../http/auth.ts'
import { readJson } from '../http/body.ts'
import { type AppEnv, auditContext } from '../http/env.ts'
import { noQuery } from '../http/params.ts'
import { json, noContent } from '../http/respond.ts'
import { email, password, presentPassword } from './account.ts'

/** The limit is longer than any token of ours. A malformed token is answered like a wrong one. */
const token = z.string().max(256)

const resetRequest = z.strictObject({ token, password })
const verifyRequest = z.strictObject({ token })
const changeEmailRequest = z.strictObject({ email, password: presentPassword })

/** An account uses the tokens that the operator delivers, and requests another address. */
export const oneTimeTokens = new Hono<AppEnv>()
  .post('/reset', noQuery, async c => {
    const request = await readJson(c, resetRequest)
    await resetPassword(c.get('services'), request, auditContext(c, 'anonymous'))
    return noContent(c)
  })
  .post('/verify-email', noQuery, async c => {
    const { token } = await readJson(c, verifyRequest)
    await verifyEmail(c.get('services'), token, auditContext(c, 'anonymous'))
    return noContent(c)
  })
  .post('/email', requireAccount, noQuery, async c => {
    const { email, password } = await readJson(c, changeEmailRequest)
    const customerId = c.get('customerId')
    const account = { customerId, sessionId: c.get('sessionId'), password }
    await requestEmailChange(c.get('services'), account, actorContext(c))
    return json(c, { customer_id: customerId, email }, 202)
  })
