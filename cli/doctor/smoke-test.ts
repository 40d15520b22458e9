import { randomBytes } from 'node:crypto'
import type { Api } from '../client.ts'
import { customerPath } from '../customer.ts'
import { CommandError, EXIT } from '../errors.ts'

/** Creates a customer, issues, verifies and revokes a token, and erases the customer. Throws CommandError. */
export async function roundTrip(api: Api, issuer: string | undefined): Promise<string> {
  const startedAt = performance.now()
  const email = `doctor-${randomBytes(8).toString('hex')}@example.invalid`
  const { customer, api_key } = await api.post('/admin/customers', { body: { email, name: 'assay doctor' } })
  try {
    const token = await issueToken(api, api_key)
    checkIssuer(token, issuer)
    await expectVerify(api, token, 200)
    await api.post('/admin/revoke', { body: { token }, query: { wait: 'all' } })
    await expectVerify(api, token, 401)
  } finally {
    await api.delete(customerPath(customer.id))
  }
  return `a token was issued, accepted, revoked and refused in ${Math.round(performance.now() - startedAt)} ms`
}

async function issueToken(api: Api, key: string): Promise<string> {
  const answer = await api.fetch('/issue', {
    method: 'POST',
    headers: { Authorization: `Bearer ${key}`, 'Content-Type': 'application/json' },
    body: '{}',
  })
  if (!answer.ok) throw failed(`/issue answered ${answer.status}`)
  return ((await answer.json()) as { access_token: string }).access_token
}

function checkIssuer(token: string, issuer: string | undefined) {
  const { iss } = JSON.parse(Buffer.from(token.split('.')[1]!, 'base64url').toString())
  if (issuer !== undefined && iss !== issuer)
    throw failed(
      `the issuer of the server's tokens is ${iss}, but here it is ${issuer}; use the server's ISSUER and PORT`,
    )
}

async function expectVerify(api: Api, token: string, status: number) {
  const answer = await api.fetch('/verify', { headers: { Authorization: `Bearer ${token}` } })
  if (answer.status !== status) throw failed(`/verify answered ${answer.status} instead of ${status}`)
}

const failed = (message: string) => new CommandError(EXIT.refused, message)
