import { randomBytes } from 'node:crypto'
import { randomId } from '../server/crypto/credentials.ts'
import { encodeHeader } from '../server/jwt/jwt.ts'
import { GATEWAY } from './assay.ts'
import type { Ask, Plan } from './plan.ts'
import { type Customer, PASSWORD, tokenOf } from './seed.ts'

/** What Assay is asked. */

/** Different requests of a plan: enough that no answer is that of the request before. */
const MIX = 1_024

const bearer = (token: string) => ({ Authorization: `Bearer ${token}` })
const basic = ({ id, secret }: { id: string; secret: string }) => ({
  Authorization: `Basic ${Buffer.from(`${id}:${secret}`).toString('base64')}`,
})
const FORM = { 'Content-Type': 'application/x-www-form-urlencoded' }
const JSON_TYPE = { 'Content-Type': 'application/json' }

const times = <Made>(many: number, make: (i: number) => Made): Made[] =>
  Array.from({ length: many }, (_, i) => make(i))

/** `many` tokens, of all the customers in turn. */
export const tokensOf = (customers: Customer[], many = MIX, ext?: Record<string, unknown>) =>
  times(many, i => tokenOf(customers[i % customers.length]!, ext))

export const get = (path: string, headers: Record<string, string>): Ask => ({ method: 'GET', path, headers })

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

/** As long as a token, and none. */
export const verifyGarbage = () => refused(times(MIX, () => randomBytes(330).toString('base64url')))

/** Well-formed in every part; the kid was never made. */
export const verifyRandomKid = (customers: Customer[]) =>
  refused(tokensOf(customers).map(token => `${randomHeader()}${token.slice(token.indexOf('.'))}`))

const randomHeader = () =>
  encodeHeader({ alg: 'HS512', typ: 'at+jwt', kid: `${randomId(10)}.a1.${randomId(15).slice(0, 13)}` })

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

/** Tokens of one request. */
export const BATCH = 100

export const introspectBatch = (customers: Customer[]): Plan => ({
  requests: times(8, () => ({
    method: 'POST',
    path: '/introspect/batch',
    headers: { ...basic(GATEWAY), ...JSON_TYPE },
    body: JSON.stringify({ tokens: tokensOf(customers, BATCH) }),
  })),
  status: 200,
  contains: '"active":true',
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

/** Sessions of their own, each of which is refreshed again and again. */
export async function refresh(port: number, customers: Customer[], sessions: number): Promise<Plan> {
  const tokens = await inTurns(sessions, i => startSession(port, customers[i % customers.length]!, i))
  return {
    requests: tokens.map(next => ({
      method: 'POST',
      path: '/refresh',
      headers: FORM,
      body: 'refresh_token={next}',
      next,
    })),
    status: 200,
    contains: '"refresh_token":"',
    follow: { member: 'refresh_token' },
  }
}

async function startSession(port: number, { apiKey }: Customer, i: number): Promise<string> {
  const body = JSON.stringify({ subject: `user-${i}`, scope: 'read write', refresh: true })
  return (await answered(port, '/issue', { ...bearer(apiKey), ...JSON_TYPE }, body)).refresh_token!
}

/** Each token once: revoking it again would find nothing to do. */
export const revoke = (customers: Customer[], many: number): Plan => ({
  requests: times(many, i => {
    const customer = customers[i % customers.length]!
    return {
      method: 'POST',
      path: '/revoke',
      headers: { ...bearer(customer.apiKey), ...FORM },
      body: `token=${tokenOf(customer)}`,
    }
  }),
  status: 200,
  contains: '',
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

/** Abreast, as a warm-up would make them. */
async function inTurns<Made>(many: number, make: (i: number) => Promise<Made>): Promise<Made[]> {
  const made: Made[] = []
  for (let i = 0; i < many; i += 32) {
    made.push(...(await Promise.all(times(Math.min(32, many - i), each => make(i + each)))))
  }
  return made
}

/** A customer that signs up, where none can be seeded. */
export async function signUp(port: number): Promise<{ apiKey: string }> {
  const account = JSON.stringify({ email: 'bench@example.com', password: PASSWORD })
  const made = await answered(port, '/api/auth/signup', JSON_TYPE, account)
  return { apiKey: made.api_key! }
}

/** New ones, for one round: they live for minutes. */
export async function issued(port: number, apiKey: string): Promise<string[]> {
  const headers = { ...bearer(apiKey), ...JSON_TYPE }
  const tokens = await inTurns(HOT_TOKENS, () => answered(port, '/issue', headers, '{"subject":"user"}'))
  return tokens.map(each => each.access_token!)
}

const HOT_TOKENS = 64

async function answered(port: number, path: string, headers: Record<string, string>, body: string) {
  const answer = await fetch(`http://127.0.0.1:${port}${path}`, { method: 'POST', headers, body })
  if (!answer.ok) throw new Error(`${path} answered ${answer.status}`)
  return (await answer.json()) as Record<string, string>
}
