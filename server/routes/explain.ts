import { z } from 'zod'
import type { AllowList } from '../clients/resource-servers.ts'
import { authenticated, presentedBy } from '../http/auth.ts'
import { readForm, readJson } from '../http/body.ts'
import type { Call, Routes } from '../http/call.ts'
import { ageOf, type Services } from '../http/env.ts'
import { present } from '../http/params.ts'
import { json, NO_STORE } from '../http/respond.ts'
import { ApiError } from '../lib/errors.ts'
import type { Explanation } from '../tokens/explain.ts'
import { operator } from './admin/operator.ts'

type Needs = Pick<Services, 'changeFeed' | 'credentials' | 'explainer' | 'operators'>

/** Why a token is refused, for those who may know of every customer's. */
export const explainingRoutes = (services: Needs): Routes => ({
  'POST /introspect/explain': explainToServer(services),
  'POST /admin/explain': explainToOperator(services),
})

/** A customer's API key may not: of a token that isn't its own it would learn whose it is. */
function explainToServer(services: Needs) {
  return async function explainToServer(call: Call) {
    const form = await readForm(call)
    const caller = await authenticated(services.credentials, presentedBy(call, form))
    if (caller.kind !== 'resource_server')
      throw new ApiError('unauthorized_client', 'only a resource server may ask why; an API key may not')
    const token = form.get('token')
    if (token === undefined) throw new ApiError('invalid_request', 'token is missing')
    return explained(services, token, caller)
  }
}

const explainRequest = z.strictObject({ token: z.string().min(1) })

/** It changes nothing, so that who only reads may ask. */
function explainToOperator(services: Needs) {
  return async function explainToOperator(call: Call) {
    operator(call, services, false)
    const { token } = await readJson(call, explainRequest)
    return explained(services, token)
  }
}

/** `limits`: of what is beyond them the caller learns what it would of a token that was never made. */
async function explained({ changeFeed, explainer }: Needs, token: string, limits?: AllowList) {
  const explanation = await explainer.explain(token, limits)
  const age = ageOf(changeFeed)
  return json(toExplanation(explanation, age), 200, {
    ...NO_STORE,
    ...(age !== undefined && { 'X-Assay-Age': age }),
  })
}

const toExplanation = (
  { active, reason, explanation, remedy, key, token, session }: Explanation,
  age?: string,
) =>
  present({
    active,
    reason,
    explanation,
    remedy,
    age_ms: age === undefined ? undefined : Number(age),
    key: key && {
      kid: key.kid,
      customer_id: key.customerId,
      use: key.use,
      version: key.version,
      state: key.state,
    },
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
