import { randomBytes } from 'node:crypto'
import { bearer, type Customer, type Issued, JSON_TYPE, PASSWORD } from './api.ts'
import { GATEWAY } from './assay.ts'
import type { Ask, Plan } from './plan.ts'

/** The plans for Assay. */

/** Number of different requests in a plan, so that consecutive requests differ. */
export const MIX = 1_024

const basic = ({ id, secret }: { id: string; secret: string }) => ({
  Authorization: `Basic ${Buffer.from(`${id}:${secret}`).toString('base64')}`,
})
const FORM = { 'Content-Type': 'application/x-www-form-urlencoded' }

const times = <Made>(many: number, make: (i: number) => Made): Made[] =>
  Array.from({ length: many }, (_, i) => make(i))

const get = (path: string, headers: Record<string, string>): Ask => ({ method: 'GET', path, headers })

export const verify = (tokens: string[]): Plan => ({
  requests: tokens.map(token => get('/verify', bearer(token))),
  status: 200,
  contains: '',
  header: 'X-Auth-Customer',
})

const refused = (tokens: string[]): Plan => ({
  requests: tokens.map(token => get('/verify', bearer(token))),
  status: 401,
  contains: '',
  header: 'WWW-Authenticate',
})

/** Random text of the length of a token. */
export const verifyGarbage = () => refused(times(MIX, () => randomBytes(330).toString('base64url')))

/** Well-formed tokens with a kid that was never issued. */
export const verifyRandomKid = (tokens: string[]) =>
  refused(tokens.map(token => `${randomHeader(token)}${token.slice(token.indexOf('.'))}`))

/** The token's own header, with the customer id in its kid replaced by random letters of the same alphabet. */
function randomHeader(token: string): string {
  const header = JSON.parse(Buffer.from(token.split('.')[0]!, 'base64url').toString())
  const letter = () => 'abcdefghijklmnopqrstuvwxyz234567'[randomBytes(1)[0]! & 31]!
  const [customer, ...rest] = header.kid.split('.')
  const kid = [customer.replaceAll(/./g, letter), ...rest].join('.')
  return Buffer.from(JSON.stringify({ ...header, kid })).toString('base64url')
}

export const introspect = (tokens: string[]): Plan => ({
  requests: tokens.map(token => ({
    method: 'POST',
    path: '/introspect',
    headers: { ...basic(GATEWAY), ...FORM },
    body: `token=${token}`,
  })),
  status: 200,
  contains: '"active":true',
})

/** Number of tokens in one request. */
export const BATCH = 100

/** The number of `tokens` is a multiple of BATCH. An answer with an inactive token is wrong. */
export const introspectBatch = (tokens: string[]): Plan => ({
  requests: times(tokens.length / BATCH, i => ({
    method: 'POST',
    path: '/introspect/batch',
    headers: { ...basic(GATEWAY), ...JSON_TYPE },
    body: JSON.stringify({ tokens: tokens.slice(i * BATCH, (i + 1) * BATCH) }),
  })),
  status: 200,
  contains: '"active":true',
  lacks: '"active":false',
})

export const issue = (customers: Pick<Customer, 'apiKey'>[]): Plan => ({
  requests: times(MIX, i => ({
    method: 'POST',
    path: '/issue',
    headers: { ...bearer(customers[i % customers.length]!.apiKey), ...JSON_TYPE },
    body: JSON.stringify({ subject: `user-${i}`, scope: 'read write' }),
  })),
  status: 200,
  contains: '"access_token":"',
})

export const clientCredentials = (customers: Customer[]): Plan => ({
  requests: times(MIX, i => {
    const { id, apiKey } = customers[i % customers.length]!
    return {
      method: 'POST',
      path: '/token',
      headers: { ...basic({ id, secret: apiKey }), ...FORM },
      body: 'grant_type=client_credentials&scope=read',
    }
  }),
  status: 200,
  contains: '"access_token":"',
})

/** Needs its own sessions, each of which is refreshed repeatedly. */
export const refresh = (sessions: Issued[]): Plan => ({
  requests: sessions.map(({ refresh_token: next }) => ({
    method: 'POST',
    path: '/refresh',
    headers: FORM,
    body: 'refresh_token={next}',
    next,
  })),
  status: 200,
  contains: '"refresh_token":"',
  follow: { member: 'refresh_token' },
})

/** Sends each token once, because revoking it again would have no effect. */
export const revoke = (customers: Customer[], tokens: string[]): Plan => ({
  requests: tokens.map((token, i) => ({
    method: 'POST',
    path: '/revoke',
    headers: { ...bearer(customers[i % customers.length]!.apiKey), ...FORM },
    body: `token=${token}`,
  })),
  status: 200,
  contains: '',
  goesOn: true,
})

export const logIn = (customers: Customer[]): Plan => ({
  requests: times(MIX, i => ({
    method: 'POST',
    path: '/api/auth/login',
    headers: { ...JSON_TYPE, 'X-Forwarded-For': `10.${i >> 8}.${i & 255}.7` },
    body: JSON.stringify({ email: customers[i % customers.length]!.email, password: PASSWORD }),
  })),
  status: 200,
  contains: '"access_token":"',
})
