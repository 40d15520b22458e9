import type { Context, Next } from 'hono'
import { createMiddleware } from 'hono/factory'
import type { AuthenticatedClient } from '../clients/authenticate.ts'
import type { ClientCredential } from '../clients/client-credential.ts'
import { assertRight } from '../clients/rights.ts'
import { isActive } from '../customers/accounts.ts'
import { customerExists, findCustomer, NO_CUSTOMER } from '../customers/admin.ts'
import type { AccessClaims } from '../jwt/claims.ts'
import { ACCOUNT, hasAll, SESSIONS, scopesOf } from '../jwt/scopes.ts'
import { ApiError, TokenMissing } from '../lib/errors.ts'
import { readForm } from './body.ts'
import { bearerToken, clientCredential, headerCredential } from './credentials.ts'
import {
  type AccountEnv,
  type AppContext,
  type ClientEnv,
  type CustomerEnv,
  credentialName,
  type OperatorEnv,
  type Services,
} from './env.ts'
import { inTurn } from './in-turn.ts'
import { customerParam } from './params.ts'
import { routeName } from './route.ts'

const NO_CREDENTIAL = new ApiError(
  'invalid_client',
  'send an API key or the credential of a service: Authorization: Bearer assay_..., or Basic with its id',
)
const INVALID_CREDENTIAL = new ApiError(
  'invalid_client',
  'this is not a valid API key or service credential; check that it is complete and has not been deleted',
)

/** `route`: as in RIGHT_OF_ROUTE. Throws `invalid_client`, or `unauthorized_client` for a service without the right. */
export async function authenticateClient(
  { clients }: Pick<Services, 'clients'>,
  credential: ClientCredential | undefined,
  route: string,
): Promise<AuthenticatedClient> {
  const client = credential && (await clients.authenticate(credential))
  if (!client) throw credential ? INVALID_CREDENTIAL : NO_CREDENTIAL
  if (client.kind === 'service') assertRight(client, route, 'unauthorized_client')
  return client
}

/** An API key or a service, by the Authorization header. */
export const requireClient = createMiddleware<ClientEnv>(async (c, next) => {
  const credential = headerCredential(c.req.header('authorization'))
  c.set('client', await authenticateClient(c.get('services'), credential, routeName(c)))
  await next()
})

/** An API key or a service, by the header or the form. */
export const requireFormClient = createMiddleware<ClientEnv>(async (c, next) => {
  const form = await readForm(c)
  const credential = clientCredential(c.req.header('authorization'), form)
  c.set('client', await authenticateClient(c.get('services'), credential, routeName(c)))
  c.set('form', form)
  await next()
})

const INVALID_TOKEN = new ApiError(
  'invalid_token',
  'the access token is malformed, expired or revoked; get a new one',
)
const NOT_A_TOKEN = new ApiError(
  'invalid_token',
  'this is a credential, not an access token; send the access token from signup or login',
)

/** The claims of a valid access token. Throws `invalid_token`. */
async function verifyAccessToken(c: AppContext): Promise<AccessClaims> {
  const { tokens, metrics } = c.get('services')
  const token = bearerToken(c.req.header('authorization'))
  if (token === undefined) throw new TokenMissing('send an access token: Authorization: Bearer ...')
  const { claims, refusal } = await tokens.verify(token)
  metrics.verified(refusal)
  if (!claims) throw token.startsWith('assay_') ? NOT_A_TOKEN : INVALID_TOKEN
  return claims
}

/**
 * Runs the route of a customer. If the customer is erased after its credential was checked, the route would answer
 * 404 or 409, which is misleading. Throws `refusal` instead if `isThere` then returns false.
 */
async function runForCustomer(c: Context, next: Next, refusal: ApiError, isThere: () => Promise<boolean>) {
  await next()
  const { error, res } = c
  if (!(error instanceof ApiError) || (error.code !== 'not_found' && error.code !== 'conflict')) return
  // Hono copies the headers of a response to the one that replaces it, Content-Length too.
  c.res = undefined
  if (!(await inTurn(c as Context<CustomerEnv>, isThere))) throw refusal
  c.res = res
}

/** A customer that acts for itself. Tokens of /issue and /token never have the scope. Throws `insufficient_scope`. */
export const requireAccount = createMiddleware<AccountEnv>(async (c, next) => {
  const claims = await verifyAccessToken(c)
  const { client_id: customerId, sid, scope } = claims
  if (!hasAll(scope, [ACCOUNT]) || sid === undefined)
    throw new ApiError(
      'insufficient_scope',
      'this needs an access token from signup or login; log in to get one',
    )
  c.get('services').sessions.markConfirmed(claims)
  c.set('customerId', customerId)
  c.set('sessionId', sid)
  c.set('actor', `session:${sid}`)
  await runForCustomer(c, next, INVALID_TOKEN, () => isActive(c.get('services'), customerId))
})

const NAME_CUSTOMER_IN_PATH = new ApiError(
  'insufficient_scope',
  'a service names the customer in the path; use /admin/customers/{customer}/sessions, or /subjects/revoke there',
)

/** The customer itself, or one of its API keys with the scope for sessions. */
export const requireAccountOrSessionsKey = createMiddleware<CustomerEnv>(async (c, next) => {
  const credential = headerCredential(c.req.header('authorization'))
  if (credential === undefined) return requireAccount(c as Context, next)
  const client = await c.get('services').clients.authenticate(credential)
  if (!client) throw INVALID_CREDENTIAL
  if (client.kind !== 'api_key') throw NAME_CUSTOMER_IN_PATH
  if (!scopesOf(client.scope).includes(SESSIONS))
    throw new ApiError('insufficient_scope', `this API key lacks the scope ${SESSIONS}; use one that has it`)
  c.set('customerId', client.customerId)
  c.set('actor', `api_key:${client.id}`)
  await runForCustomer(c, next, INVALID_CREDENTIAL, () => isActive(c.get('services'), client.customerId))
})

const NO_OPERATOR_TOKEN = 'send an operator token, or a service credential: Authorization: Bearer ...'
const NOT_AN_OPERATOR_TOKEN =
  'this is not a valid operator token or service credential; check that it is complete and still in use'
const READ_ONLY_TOKEN = 'this operator token is read-only; use one that may make changes'

/** These routes change nothing. They use POST because a token must not be in a URL. */
const READ_BY_POST = new Set(['/admin/explain'])

/** Returns the operator whose token the request has. Throws `invalid_token`. */
export function authenticateOperator(c: AppContext) {
  const token = bearerToken(c.req.header('authorization'))
  if (token === undefined) throw new TokenMissing(NO_OPERATOR_TOKEN)
  const operator = c.get('services').operators.find(token)
  if (!operator) throw new ApiError('invalid_token', NOT_AN_OPERATOR_TOKEN)
  return operator
}

/** Throws `invalid_token`; `insufficient_scope` where a read-only token requests a change. */
export const requireOperator = createMiddleware<OperatorEnv>(async (c, next) => {
  const { name, readOnly } = authenticateOperator(c)
  if (readOnly && isChange(c)) throw new ApiError('insufficient_scope', READ_ONLY_TOKEN)
  c.set('actor', `operator:${name}`)
  await next()
})

/** An operator, or a service with the right that the route needs. Throws as `requireOperator`. */
export const requireOperatorOrService = createMiddleware<OperatorEnv>(async (c, next) => {
  const credential = headerCredential(c.req.header('authorization'))
  const service = credential && (await c.get('services').clients.authenticateService(credential))
  if (!service) return requireOperator(c, next)
  assertRight(service, routeName(c), 'insufficient_scope')
  c.set('client', service)
  c.set('actor', credentialName(service))
  await next()
})

const isChange = ({ req: { method, path } }: Context) =>
  method !== 'GET' && method !== 'HEAD' && !READ_BY_POST.has(path)

/**
 * The customer that the path names, for a resource that operators and services manage. Throws `not_found`, also if the customer
 * is erased during the request.
 */
export const loadCustomer = createMiddleware<CustomerEnv>(async (c, next) => {
  const { id } = await findCustomer(c.get('services'), customerParam(c))
  c.set('customerId', id)
  await runForCustomer(c, next, NO_CUSTOMER, () => customerExists(c.get('services'), id))
})
