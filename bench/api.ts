import { Agent, request } from 'node:http'
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

/** Customers whose passwords are set can log in, and cost the hashing of one each. */
export const createCustomers = (assay: Assay, many: number, password?: string): Promise<Customer[]> =>
  abreast(many, async i => {
    const email = `customer-${i}-${many}@example.com`
    const made = await post(assay.port, '/admin/customers', bearer(assay.adminToken), { email, password })
    return { id: made.customer.id, email, apiKey: made.api_key }
  })

/** Tokens of all the customers in turn. `more`: members of the request. */
export async function issueTokens(
  { port }: Assay,
  customers: Pick<Customer, 'apiKey'>[],
  many: number,
  more = {},
): Promise<Issued[]> {
  return abreast(many, i =>
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

/** One request of a plan, as the load sends it. Its answer must be 200. */
export async function ask(port: number, { method, path, headers, body }: Ask): Promise<Response> {
  const answer = await fetch(`http://127.0.0.1:${port}${path}`, { method, headers, ...(body && { body }) })
  if (answer.status !== 200) throw new Error(`${path} answered ${answer.status}`)
  return answer
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
async function abreast<Made>(many: number, make: (i: number) => Promise<Made>): Promise<Made[]> {
  const made: Made[] = new Array(many)
  let next = 0
  const go = async () => {
    while (next < many) {
      const i = next++
      made[i] = await make(i)
    }
  }
  await Promise.all(Array.from({ length: ABREAST }, go))
  return made
}

/** fetch takes twice the time for what is asked a hundred thousand times. */
async function post(port: number, path: string, headers: Record<string, string>, body: unknown) {
  const json = JSON.stringify(body)
  const length = { 'Content-Length': String(Buffer.byteLength(json)) }
  const options = { agent, host: '127.0.0.1', port, path, method: 'POST' }
  const { promise, resolve, reject } = Promise.withResolvers<import('node:http').IncomingMessage>()
  request({ ...options, headers: { ...headers, ...JSON_TYPE, ...length } }, resolve)
    .on('error', reject)
    .end(json)
  const answer = await promise
  const answered = await text(answer)
  if (answer.statusCode! > 201) throw new Error(`${path} answered ${answer.statusCode}: ${answered}`)
  return JSON.parse(answered)
}
