import { createHmac } from 'node:crypto'
import { formatKid, type Use } from '../../server/jwt/kid.ts'
import type { CustomerRecord, HmacKey } from '../../server/keys/customer-keys.ts'
import { encode } from '../crypto/mutate.ts'
import { type Customer, claimsOf, type Replica, type World } from './world.ts'

/** Tokens that the holder of a customer's real secret could sign, and how every endpoint answers them. */

const HASH = { HS256: 'sha256', HS384: 'sha384', HS512: 'sha512' } as const
export const TYPE = { access: 'at+jwt', refresh: 'rt+jwt' } as const

/** Signs two segments with any content. */
export function signSegments(header: string, claims: string, secret: Uint8Array, alg: keyof typeof HASH) {
  const signature = createHmac(HASH[alg], secret).update(`${header}.${claims}`).digest('base64url')
  return `${header}.${claims}.${signature}`
}

/** The secrets of a record: all keys of a customer with HMAC tokens. */
export const hmacKeysOf = ({ keys }: Pick<CustomerRecord, 'keys'>) =>
  keys.filter((key): key is HmacKey => key.pair === undefined)

export type Forger = Awaited<ReturnType<typeof forger>>

/** A customer's real key, and one valid token signed with it. */
export async function forger(replica: Replica, customer: Customer, use: Use) {
  const record = await replica.keys.load(customer.id)
  const key = hmacKeysOf(record).find(each => each.use === use)!
  const tokens = await customer.session()
  const token = use === 'access' ? tokens.access_token : tokens.refresh_token
  const header = { alg: key.alg, typ: TYPE[use], kid: key.kid }
  const claims = claimsOf(token) as Record<string, unknown>
  const [headerSegment = '', claimsSegment = '', signature = ''] = token.split('.')
  return {
    use,
    customer,
    token,
    tokens,
    header,
    claims,
    headerSegment,
    claimsSegment,
    signature,
    secret: key.secret,
    headerText: JSON.stringify(header),
    claimsText: JSON.stringify(claims),
    signer: (input: string) => createHmac(HASH[key.alg], key.secret).update(input).digest('base64url'),
    /** Signs segments, texts or objects with the real key. */
    segments: (h: string, c: string) => signSegments(h, c, key.secret, key.alg),
    texts: (h: string | Buffer, c: string | Buffer) =>
      signSegments(encode(h), encode(c), key.secret, key.alg),
    withHeader: (more: object) =>
      signSegments(encode(JSON.stringify({ ...header, ...more })), claimsSegment, key.secret, key.alg),
    withClaims: (more: object) =>
      signSegments(headerSegment, encode(JSON.stringify({ ...claims, ...more })), key.secret, key.alg),
  }
}

/** The kid of a customer's first key in this installation, whether or not the customer exists. */
export const kidOf = (world: World, customerId: string, use: Use = 'access', version = 1) =>
  formatKid(world.keyRing.installationKey, { customerId, use, version })

/** Characters that a header can contain; fetch's own Headers refuses all others. */
export const isHeaderValue = (text: string) => /^[\x20-\x7e\x80-\xff]*$/.test(text)

/** How each endpoint that takes a token answers each of these. */
export async function verdicts(replica: Replica, token: string, apiKey: string): Promise<string[]> {
  const verified = isHeaderValue(token) ? (await replica.verify(token)).status : 401
  const told = async (authorization?: string) => {
    const { json, text } = await replica.introspect(token, authorization)
    return json.error ?? text
  }
  const [toServer, toOwner] = [await told(), await told(`Bearer ${apiKey}`)]
  const refreshed = await replica.refresh(token)
  return [
    `verify ${verified}`,
    `introspect ${toServer}`,
    `introspect ${toOwner}`,
    `refresh ${refreshed.status} ${refreshed.json.error}`,
  ]
}

export const REFUSED = [
  'verify 401',
  'introspect {"active":false}',
  'introspect {"active":false}',
  'refresh 400 invalid_grant',
]

/** A control character is refused before the value is parsed. */
const UNREADABLE = ['verify 401', 'introspect invalid_request', 'refresh 400 invalid_request']

/** Returns the indices of the tokens that some endpoint accepted; the tokens themselves must not be printed. */
export async function notRefused(replica: Replica, tokens: Iterable<string>, apiKey: string) {
  const wrong: string[] = []
  let asked = 0
  for (const token of tokens) {
    const expected = /\p{Cc}/u.test(token) ? [...REFUSED, ...UNREADABLE] : REFUSED
    const said = (await verdicts(replica, token, apiKey)).filter(each => !expected.includes(each))
    if (said.length > 0) wrong.push(`${asked}: ${said.map(each => each.slice(0, 60)).join(', ')}`)
    asked++
  }
  return { asked, wrong }
}
