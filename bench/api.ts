import { Agent, type IncomingMessage, request } from 'node:http'
import { text } from 'node:stream/consumers'
import type { Assay } from './assay.ts'
import type { Ask } from './plan.ts'

/**
 * Requests that the bench sends to a server before it loads it. It uses only HTTP, so it works with every version of the code.
 */

export const PASSWORD = 'correct horse battery staple'

export interface Customer {
  id: string
  email: string
  apiKey: string
}

export const bearer = (token: string) => ({ Authorization: `Bearer ${token}` })
export const JSON_TYPE = { 'Content-Type': 'application/json' }

/** Maximum number of concurrent password hashes; the server refuses requests beyond its limit. */
const AT_THE_GATE = 8

export const ASYMMETRIC = ['EdDSA', 'ES256', 'RS256'] as const
export type AsymmetricAlgorithm = (typeof ASYMMETRIC)[number]

export interface CustomerOptions {
  /** With a password, customers can log in. Without one they take as long to create: the server hashes a random password. */
  password?: string
  /** Defaults to HS512. */
  signingAlg?: AsymmetricAlgorithm
}

/** Each customer needs an email address of its own. */
let emails = 0

export const createCustomers = (
  assay: Assay,
  many: number,
  { password, signingAlg }: CustomerOptions = {},
): Promise<Customer[]> =>
  abreast(many, AT_THE_GATE, async () => {
    const email = `customer-${++emails}@example.com`
    const made = await post(assay.port, '/admin/customers', bearer(assay.adminToken), { email, password })
    const { id } = made.customer
    if (signingAlg) await setSigningAlg(assay, id, signingAlg)
    return { id, email, apiKey: made.api_key }
  })

/** Sets the algorithm of the customer's access tokens. */
export async function setSigningAlg({ port, adminToken }: Assay, id: string, alg: AsymmetricAlgorithm) {
  const headers = { ...bearer(adminToken), ...JSON_TYPE }
  const body = JSON.stringify({ signing_alg: alg })
  await ask(port, { method: 'PUT', path: `/admin/customers/${id}/policy`, headers, body })
}

/** Issues tokens of all the customers in turn. `more`: additional members of the request. */
export async function issueTokens(
  { port }: Assay,
  customers: Pick<Customer, 'apiKey'>[],
  many: number,
  more = {},
): Promise<Issued[]> {
  return abreast(many, ABREAST, i =>
    post(port, '/issue', bearer(customers[i % customers.length]!.apiKey), {
      subject: `user-${i}`,
      scope: 'read write',
      ...more,
    }),
  )
}

export interface Issued {
  access_token: string
  refresh_token: string
}

/** The value on a line of /metrics. Undefined if no line matches. */
export async function metric({ port, adminToken }: Assay, line: RegExp): Promise<number | undefined> {
  const answer = await fetch(`http://127.0.0.1:${port}/metrics`, { headers: bearer(adminToken) })
  if (!answer.ok) throw new Error(`/metrics answered ${answer.status}`)
  const found = (await answer.text()).split('\n').find(each => line.test(each))
  return found === undefined ? undefined : Number(found.slice(found.lastIndexOf(' ')))
}

const ABREAST = 64
const agent = new Agent({ keepAlive: true, maxSockets: ABREAST })

/** Runs `make` `many` times, `atATime` of them concurrently. */
async function abreast<Made>(
  many: number,
  atATime: number,
  make: (i: number) => Promise<Made>,
): Promise<Made[]> {
  const made: Made[] = new Array(many)
  let next = 0
  const go = async () => {
    while (next < many) {
      const i = next++
      made[i] = await make(i)
    }
  }
  await Promise.all(Array.from({ length: atATime }, go))
  return made
}

/** Sends JSON and returns the parsed answer. Throws on an error status. */
export async function post(port: number, path: string, headers: Record<string, string>, body: unknown) {
  const json = { ...headers, ...JSON_TYPE }
  return JSON.parse(
    (await ask(port, { method: 'POST', path, headers: json, body: JSON.stringify(body) })).body,
  )
}

export interface Answer {
  /** Excludes the headers that every Node server adds. */
  headers: [name: string, value: string][]
  body: string
}

/** Sends one request as the load would. It is sent a hundred thousand times, and fetch takes twice as long. */
export async function ask(port: number, { method, path, headers, body = '' }: Ask): Promise<Answer> {
  const length = body === '' ? {} : { 'Content-Length': String(Buffer.byteLength(body)) }
  const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>()
  request({ agent, host: '127.0.0.1', port, path, method, headers: { ...headers, ...length } }, resolve)
    .on('error', reject)
    .end(body)
  const answer = await promise
  const answered = await text(answer)
  if (answer.statusCode! > 201) throw new Error(`${path} answered ${answer.statusCode}: ${answered}`)
  return { headers: headersOf(answer.rawHeaders), body: answered }
}

const OF_THE_SERVER = new Set(['connection', 'date', 'keep-alive', 'transfer-encoding'])

const headersOf = (raw: string[]) =>
  raw
    .flatMap((name, i): [string, string][] => (i % 2 === 0 ? [[name, raw[i + 1]!]] : []))
    .filter(([name]) => !OF_THE_SERVER.has(name.toLowerCase()))
