import { bearer, type Customer, type Replica } from './world.ts'

/** Creates another API key for the customer, with the customer's own login. */
export async function apiKeyOf(
  replica: Replica,
  customer: Customer,
  key: { scopes?: string[]; expires_in?: number } = {},
): Promise<{ id: string; api_key: string }> {
  const { email, password } = customer
  const login = await replica.postJson('/api/auth/login', { email, password })
  const { status, json } = await replica.postJson('/api/keys', key, bearer(login.json.access_token))
  if (status !== 201) throw new Error(`an API key was answered ${status}`)
  return json
}

/** Basic credentials as RFC 6749 2.3.1 wants them, and as oauth4webapi sends them: even `_` percent-encoded. */
export function encodedBasic(id: string, secret: string): string {
  const encode = (text: string) => text.replace(/[^A-Za-z0-9]/g, each => `%${hex(each)}`)
  return `Basic ${Buffer.from(`${encode(id)}:${encode(secret)}`).toString('base64')}`
}

const hex = (text: string) => Buffer.from(text).toString('hex').toUpperCase()
