import { Agent, type IncomingMessage, request } from 'node:http'
import { text } from 'node:stream/consumers'
import type { Assay } from './assay.ts'
import type { Ask } from './plan.ts'

/** What the bench asks a server for before it loads it. All by HTTP, so that it works with every state of the code. */

export const PASSWORD = 'correct horse battery staple'

export interface Customer {
  id: string
  email: string
  apiKey: string
}

export const bearer = (token: string) => ({ Authorization: `Bearer ${token}` })
export const JSON_TYPE = { 'Content-Type': 'application/json' }

/** Passwords that are hashed at a time: of many more some would be refused. */
const AT_THE_GATE = 8

export const ASYMMETRIC = ['EdDSA', 'ES256', 'RS256'] as const
export type AsymmetricAlgorithm = (typeof ASYMMETRIC)[number]

export interface CustomerOptions {
  /** With a password they can log in. Without one they cost as much: the hash of none that anybody knows. */
  password?: string
  /** HS512 without one. */
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

/** Switches the algorithm of the customer's access tokens. */
export async function setSigningAlg({ port, adminToken }: Assay, id: string, alg: AsymmetricAlgorithm) {
  const headers = { ...bearer(adminToken), ...JSON_TYPE }
  const body = JSON.stringify({ signing_alg: alg })
  await ask(port, { method: 'PUT', path: `/admin/customers/${id}/policy`, headers, body })
}

/** Tokens of all the customers in turn. `more`: members of the request. */
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

/** The number at a line of /metrics; undefined where there is none. */
export async function metric({ port, adminToken }: Assay, line: RegExp): Promise<number | undefined> {
  const answer = await fetch(`http://127.0.0.1:${port}/metrics`, { headers: bearer(adminToken) })
  if (!answer.ok) throw new Error(`/metrics answered ${answer.status}`)
  const found = (await answer.text()).split('\n').find(each => line.test(each))
  return found === undefined ? undefined : Number(found.slice(found.lastIndexOf(' ')))
}

const ABREAST = 64
const agent = new Agent({ keepAlive: true, maxSockets: ABREAST })

/** So many at a time. */
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
  /** As they were written, but for those that every server of Node's writes. */
  headers: [name: string, value: string][]
  body: string
}

/** One request, as the load would send it. fetch takes twice the time, of what is asked a hundred thousand times. */
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
