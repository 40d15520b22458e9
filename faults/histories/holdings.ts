import type { Grant } from './call.ts'
import type { Names } from './names.ts'

/** The tokens and credentials that clients hold, each with its name in the history. */

export interface Customer {
  name: string
  email: string
  password: string
  apiKey: string
}

export interface Access {
  name: string
  text: string
  customer: Customer
}

export interface Refresh {
  text: string
  gen: number
  /** When it was requested; until then the previous token was the current one (ms). */
  askedAt: number
}

export interface Session {
  name: string
  id: string
  customer: Customer
  subject: string
  access: Access
  /** Every refresh token of the session; the last is the current one. */
  refreshes: Refresh[]
}

interface TokenResponse {
  access_token: string
  refresh_token?: string
}

/** Describes a token response by names. */
export function grantOf(names: Names, { access_token, refresh_token }: TokenResponse): Grant {
  const { client_id, sub, jti, iat, exp } = claimsOf(access_token)
  return {
    token: names.of('a', jti),
    customer: names.of('c', client_id),
    subject: names.find(sub) ?? sub,
    version: versionOf(access_token),
    lifetime: (exp - iat) * 1_000,
    ...(refresh_token !== undefined && { session: lineOf(names, refresh_token) }),
  }
}

function lineOf(names: Names, refresh: string) {
  const { sid, gen } = claimsOf(refresh)
  const name = names.of('s', sid)
  return { name, gen, text: names.of(`${name}.${gen}/`, refresh) }
}

const part = (token: string, n: 0 | 1) =>
  JSON.parse(Buffer.from(token.split('.')[n]!, 'base64url').toString())

export const claimsOf = (token: string) => part(token, 1)

/** From the kid: `<customer>.<use><version>.<MAC>`. */
const versionOf = (token: string) => Number(part(token, 0).kid.split('.')[1].slice(1))
