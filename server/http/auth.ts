import type { AuthenticatedClient, ClientAuthenticator, ClientCredential } from '../clients/authenticate.ts'
import type { AccessClaims } from '../jwt/claims.ts'
import { ACCOUNT, hasAll, SESSIONS, scopesOf } from '../jwt/scopes.ts'
import { ApiError, TokenMissing } from '../lib/errors.ts'
import type { Call } from './call.ts'
import type { Services } from './env.ts'

const BEARER = /^bearer +([\w\-.~+/]+=*) *$/i
const BASIC = /^basic +([A-Za-z0-9+/\-_]+=*) *$/i

/** RFC 6750 2.1. Undefined when the header is missing or of another scheme. */
export const bearerOf = (authorization: string | undefined): string | undefined =>
  authorization === undefined ? undefined : BEARER.exec(authorization)?.[1]

/** A Bearer credential came, well-formed or not. */
export const isBearer = (authorization: string | undefined) => /^bearer\b/i.test(authorization ?? '')

/** A client's credentials, from the header, the form, or both if they are the same (lua-resty-openidc sends both). */
export function presentedBy(call: Call, form: Map<string, string>): ClientCredential | undefined {
  const inHeader = presentedInHeader(call.header('authorization'))
  const clientId = form.get('client_id')
  const secret = form.get('client_secret')
  if (secret === undefined) {
    if (inHeader && clientId !== undefined && clientId !== clientOf(inHeader)) throw TWICE
    return inHeader
  }
  if (inHeader && (inHeader.secret !== secret || clientOf(inHeader) !== clientId)) throw TWICE
  return { clientId, secret }
}

/** An API key that came as a Bearer names its customer in its id. */
const clientOf = ({ clientId, secret }: ClientCredential) => clientId ?? secret.split('_')[2]?.slice(0, 16)

const TWICE = new ApiError(
  'invalid_request',
  'the header and the form name different clients; send one of them',
)

/** What a client tried and can't be read is a wrong credential, not none (RFC 6749 5.2). */
const MALFORMED: ClientCredential = { clientId: undefined, secret: '' }

function presentedInHeader(authorization: string | undefined): ClientCredential | undefined {
  const bearer = bearerOf(authorization)
  // Whatever else is a Bearer is a token: clients add their old access token even to the call that refreshes it.
  if (bearer !== undefined)
    return bearer.startsWith('assay_') ? { clientId: undefined, secret: bearer } : undefined
  const basic = authorization === undefined ? undefined : BASIC.exec(authorization)?.[1]
  if (basic === undefined) return /^basic\b/i.test(authorization ?? '') ? MALFORMED : undefined
  const pair = Buffer.from(basic, 'base64').toString()
  const colon = pair.indexOf(':')
  if (colon < 0) return MALFORMED
  return { clientId: decoded(pair.slice(0, colon)), secret: decoded(pair.slice(colon + 1)) }
}

/** Both raw and form-urlencoded credentials arrive (RFC 6749 2.3.1 asks for the second); ours hold no percent sign. */
function decoded(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    return text
  }
}

const NO_CREDENTIAL = new ApiError('invalid_client', 'send a credential: Authorization: Bearer assay_ak_...')
const INVALID_CREDENTIAL = new ApiError(
  'invalid_client',
  'this is no valid API key or resource-server credential',
)

/** Throws `invalid_client`. */
export async function authenticated(
  credentials: ClientAuthenticator,
  presented: ClientCredential | undefined,
): Promise<AuthenticatedClient> {
  const caller = presented && (await credentials.authenticate(presented))
  if (!caller) throw presented ? INVALID_CREDENTIAL : NO_CREDENTIAL
  return caller
}

export type ApiKeyCaller = Extract<AuthenticatedClient, { kind: 'api_key' }>

/** Throws `invalid_client`, or `unauthorized_client` for a resource server. */
export async function apiKey(
  credentials: ClientAuthenticator,
  presented: ClientCredential | undefined,
): Promise<ApiKeyCaller> {
  const caller = await authenticated(credentials, presented)
  if (caller.kind !== 'api_key')
    throw new ApiError(
      'unauthorized_client',
      'only an API key of a customer may do this; a resource server may not',
    )
  return caller
}

const TOKEN_REFUSED = 'the access token is malformed, expired or revoked'
const NOT_A_KEY = 'this is a credential, not an access token; send the one from signup or login'

/** The claims of a valid access token. Throws `invalid_token`. */
export async function accessToken(
  call: Call,
  { tokens, metrics }: Pick<Services, 'tokens' | 'metrics'>,
): Promise<AccessClaims> {
  const token = bearerOf(call.header('authorization'))
  if (token === undefined) throw new TokenMissing('send an access token: Authorization: Bearer ...')
  const { claims, refusal } = await tokens.verify(token)
  metrics.verified(refusal)
  if (!claims) throw new ApiError('invalid_token', token.startsWith('assay_') ? NOT_A_KEY : TOKEN_REFUSED)
  return claims
}

export type AccountClaims = AccessClaims & { sid: string }

/** A customer acting for itself. Tokens of /issue and /token never have the scope. Throws `insufficient_scope`. */
export async function account(
  call: Call,
  services: Pick<Services, 'tokens' | 'metrics' | 'sessions'>,
): Promise<AccountClaims> {
  const claims = await accessToken(call, services)
  if (!hasAll(claims.scope, [ACCOUNT]) || claims.sid === undefined)
    throw new ApiError('insufficient_scope', 'only a token from signup or login may do this')
  services.sessions.markConfirmed(claims)
  return claims as AccountClaims
}

/** Whose things a call is about, and who acts. Throws what says that it may not. */
export type Keeper = (call: Call) => Promise<{ customerId: string; actor: string }>

/** A customer sees to its own. */
export const accountKeeper =
  (services: Pick<Services, 'tokens' | 'metrics' | 'sessions'>): Keeper =>
  async call => {
    const { client_id: customerId, sid } = await account(call, services)
    return { customerId, actor: `session:${sid}` }
  }

/** Who may see to a customer's sessions: itself, or an API key that has the scope for it. */
export const sessionKeeper =
  (services: Pick<Services, 'tokens' | 'metrics' | 'sessions' | 'credentials'>): Keeper =>
  async call => {
    const presented = presentedBy(call, new Map())
    if (presented === undefined) return accountKeeper(services)(call)
    const caller = await authenticated(services.credentials, presented)
    if (caller.kind !== 'api_key')
      throw new ApiError('insufficient_scope', 'a resource server may not see to sessions')
    if (!scopesOf(caller.scope).includes(SESSIONS))
      throw new ApiError('insufficient_scope', `this API key lacks the scope ${SESSIONS}`)
    return { customerId: caller.customerId, actor: `api_key:${caller.id}` }
  }
