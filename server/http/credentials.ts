import { LRUCache } from 'lru-cache'
import { ClientCredential } from '../clients/client-credential.ts'
import { customerNamedBy } from '../crypto/credentials.ts'
import { ApiError } from '../lib/errors.ts'

const BEARER = /^bearer +([\w\-.~+/]+=*) *$/i
const BASIC = /^basic +([A-Za-z0-9+/\-_]+=*) *$/i

/** The token of `Authorization: Bearer` (RFC 6750 2.1). Undefined when the header is missing or has another scheme. */
export const bearerToken = (authorization: string | undefined): string | undefined =>
  authorization === undefined ? undefined : BEARER.exec(authorization)?.[1]

/** True for a Bearer header, well-formed or not. */
export const isBearer = (authorization: string | undefined) => /^bearer\b/i.test(authorization ?? '')

/**
 * A client's credential from the header, the form, or both if they are the same (lua-resty-openidc sends both). Undefined for
 * a client that names itself without a secret.
 */
export function clientCredential(
  authorization: string | undefined,
  form: Map<string, string>,
): ClientCredential | undefined {
  const inHeader = headerCredential(authorization)
  const clientId = publicClientId(authorization, form)
  const secret = form.get('client_secret')
  if (secret === undefined) {
    if (inHeader && clientId !== undefined && clientId !== clientIdOf(inHeader)) throw TWO_CLIENTS
    return inHeader
  }
  if (inHeader && (inHeader.secret !== secret || clientIdOf(inHeader) !== clientId)) throw TWO_CLIENTS
  return new ClientCredential(clientId, secret)
}

/** The id that a client without a secret sends in the form or as Basic. Throws if these differ. */
export function publicClientId(
  authorization: string | undefined,
  form: Map<string, string>,
): string | undefined {
  const inForm = form.get('client_id')
  const read = authorization === undefined ? undefined : cachedCredential(authorization)
  if (!isWithoutSecret(read)) return inForm
  if (inForm !== undefined && inForm !== read.clientId) throw TWO_CLIENTS
  return read.clientId
}

/** RFC 6749 2.3.1: an empty secret is the same as none. Go's x/oauth2 sends it for a client that has none. */
const isWithoutSecret = (
  read: ClientCredential | undefined,
): read is ClientCredential & { clientId: string } => read?.secret === '' && Boolean(read.clientId)

const TWO_CLIENTS = new ApiError(
  'invalid_request',
  'the header and the form name different clients; send one of them',
)

/**
 * A Bearer credential contains the id of its client: an API key that of its customer, a service's credential that of the service.
 */
function clientIdOf({ clientId, parsed }: ClientCredential) {
  if (clientId !== undefined || parsed === undefined) return clientId
  return parsed.prefix === 'assay_ak' ? customerNamedBy(parsed.id) : parsed.id
}

/** An unreadable credential counts as wrong, not as missing (RFC 6749 5.2). */
const MALFORMED = new ClientCredential(undefined, '')

/**
 * A client sends the same header with every request, so its parsed form is cached. Its validity is checked on each request.
 * Headers above MAX_KEPT_LENGTH are not cached, because no client's header is longer.
 */
const read = new LRUCache<string, ClientCredential>({ max: 1_000 })
const MAX_KEPT_LENGTH = 512

/** Undefined when there is no header, or no secret or an access token in it. */
export function headerCredential(authorization: string | undefined): ClientCredential | undefined {
  const credential = authorization === undefined ? undefined : cachedCredential(authorization)
  return isWithoutSecret(credential) ? undefined : credential
}

function cachedCredential(authorization: string): ClientCredential | undefined {
  const known = read.get(authorization)
  if (known) return known
  const credential = readCredential(authorization)
  if (credential && authorization.length <= MAX_KEPT_LENGTH) read.set(authorization, credential)
  return credential
}

function readCredential(authorization: string): ClientCredential | undefined {
  const bearer = bearerToken(authorization)
  // Any other Bearer is an access token: clients add their old one even to the request that refreshes it.
  if (bearer !== undefined)
    return bearer.startsWith('assay_') ? new ClientCredential(undefined, bearer) : undefined
  const basic = BASIC.exec(authorization)?.[1]
  if (basic === undefined) return /^basic\b/i.test(authorization) ? MALFORMED : undefined
  const pair = Buffer.from(basic, 'base64').toString()
  const colon = pair.indexOf(':')
  if (colon < 0) return MALFORMED
  return new ClientCredential(percentDecoded(pair.slice(0, colon)), percentDecoded(pair.slice(colon + 1)))
}

/**
 * Clients send both raw and form-urlencoded credentials (RFC 6749 2.3.1 requires the second); ours contain no percent
 * sign.
 */
function percentDecoded(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    return text
  }
}
