import { Hono } from 'hono'
import { z } from 'zod'
import { assertSameCustomer } from '../clients/served-customer.ts'
import type { AllowList } from '../clients/service-clients.ts'
import { requireFormClient } from '../http/auth.ts'
import { readJson } from '../http/body.ts'
import { stateAge } from '../http/consistency.ts'
import type { AppContext, ClientEnv, OperatorEnv } from '../http/env.ts'
import { noQuery, present } from '../http/params.ts'
import { json } from '../http/respond.ts'
import { ApiError } from '../lib/errors.ts'
import { type Explanation, explainToken } from '../tokens/explain.ts'

/**
 * Explains why a token is refused. Customers' API keys may not call it, because they could learn about other customers' tokens.
 */
export const explain = new Hono<ClientEnv>().post('/', requireFormClient, noQuery, c => {
  const client = c.get('client')
  if (client.kind !== 'service')
    throw new ApiError(
      'unauthorized_client',
      "an API key can't explain tokens; use a service credential with the right introspect",
    )
  const form = c.get('form')
  const token = form.get('token')
  if (token === undefined) throw new ApiError('invalid_request', 'token is missing')
  return respondWithExplanation(c, token, { ...client, named: form.get('customer') })
})

const explainRequest = z.strictObject({ token: z.string().min(1) })

export const adminExplain = new Hono<OperatorEnv>().post('/', noQuery, async c => {
  const { token } = await readJson(c, explainRequest)
  return respondWithExplanation(c, token)
})

/** `limits`: a token beyond them is explained like one that was never issued. */
async function respondWithExplanation(
  c: AppContext,
  token: string,
  limits?: AllowList & { named?: string | undefined },
) {
  const explanation = await explainToken(c.get('services'), token, limits)
  if (explanation.key) assertSameCustomer(explanation.key.customerId, limits?.named)
  const age = stateAge(c.get('services').changeFeed)
  const headers = age === undefined ? {} : { 'X-Assay-Age': age }
  return json(c, serializeExplanation(explanation, age), 200, headers)
}

const serializeExplanation = (
  { active, reason, explanation, remedy, key, token, session }: Explanation,
  age?: string,
) =>
  present({
    active,
    reason,
    explanation,
    remedy,
    age_ms: age === undefined ? undefined : Number(age),
    key:
      key &&
      present({
        kid: key.kid,
        customer_id: key.customerId,
        use: key.use,
        version: key.version,
        state: key.state,
        alg: key.alg,
      }),
    token: token && {
      id: token.id,
      subject: token.subject,
      issued_at: new Date(token.issuedAt * 1000),
      expires_at: new Date(token.expiresAt * 1000),
    },
    session:
      session &&
      present({
        id: session.id,
        state: session.state,
        generation: session.generation,
        token_generation: session.tokenGeneration,
      }),
  })
