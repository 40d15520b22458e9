import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { forger } from '../support/forge.ts'
import {
  ADMIN_TOKEN,
  basic,
  bearer,
  type Customer,
  makeWorld,
  READER,
  type Replica,
  SERVICE,
  type World,
} from '../support/world.ts'

/** Explains to authorized callers why a token is refused. */

let world: World
let assay: Replica
let customer: Customer

beforeAll(async () => {
  world = await makeWorld()
  assay = await world.replica()
})
afterAll(() => world.stop())

const explain = async (token: string, { toServers = true } = {}) => {
  const { status, json } = await assay.postJson('/admin/explain', { token }, bearer(READER))
  expect(status).toBe(200)
  if (!toServers) return json
  const server = { Authorization: basic(SERVICE.id, SERVICE.secret) }
  const toServer = await assay.postForm('/introspect/explain', { token }, server)
  expect({ ...toServer.json, age_ms: 0 }).toEqual({ ...json, age_ms: 0 })
  return json
}

beforeAll(async () => {
  customer = await assay.signUp()
})

test('a valid token: its owner, its key, its session', async () => {
  const { access_token, session_id } = await customer.session()
  expect(await explain(access_token)).toMatchObject({
    active: true,
    key: { customer_id: customer.id, use: 'access', version: 1, state: 'current' },
    token: { subject: 'user-1' },
    session: { id: session_id, state: 'live', generation: 1, token_generation: 1 },
  })
})

describe('of a refresh token', () => {
  test('a valid one', async () => {
    const { refresh_token } = await customer.session()
    expect(await explain(refresh_token, { toServers: false })).toMatchObject({
      active: true,
      key: { use: 'refresh' },
    })
    const server = { Authorization: basic(SERVICE.id, SERVICE.secret) }
    const told = await assay.postForm('/introspect/explain', { token: refresh_token }, server)
    expect(told.json).toMatchObject({ active: false, reason: 'key_unknown' })
    expect(told.json.key ?? told.json.session).toBeUndefined()
  })

  test('a used one, and one whose session has ended', async () => {
    const { refresh_token, session_id } = await customer.session()
    const next = (await assay.refresh(refresh_token)).json
    expect(await explain(refresh_token, { toServers: false })).toMatchObject({
      active: false,
      reason: 'token_used',
      session: { generation: 2, token_generation: 1 },
    })
    await assay.request(`/api/sessions/${session_id}`, { method: 'DELETE', headers: bearer(customer.apiKey) })
    expect(await explain(next.refresh_token, { toServers: false })).toMatchObject({
      active: false,
      reason: 'session_ended',
      session: { state: 'ended' },
    })
  })
})

test('a refresh token is not called active after a revocation of everything, or if its customer is disabled', async () => {
  const other = await assay.signUp()
  const at = (more: string, body = {}) =>
    assay.postJson(`/admin/customers/${other.id}${more}`, body, bearer(ADMIN_TOKEN))
  const bySubject = await other.session()
  await at('/subjects/revoke', { subject: 'user-1' })
  const reason = async (token: string) => (await explain(token, { toServers: false })).reason
  expect(await reason(bySubject.refresh_token)).toBe('session_ended')
  const later = await other.session()
  await at('/disable')
  expect(await reason(later.refresh_token)).toBe('customer_disabled')
  await at('/enable')
  expect(await reason(later.refresh_token)).toBeUndefined()
  await at('/revoke')
  expect(await reason(later.refresh_token)).toBe('session_ended')
})

describe('of an access token, the first check that failed', () => {
  const cases: Record<string, () => Promise<string>> = {
    credential: async () => customer.apiKey,
    token_malformed: async () => 'garbage',
    key_unknown: async () => {
      const gone = await assay.signUp()
      const token = (await gone.session()).access_token
      const erase = { method: 'DELETE', headers: bearer(ADMIN_TOKEN) }
      await assay.request(`/admin/customers/${gone.id}`, erase)
      return token
    },
    signature_wrong: async () => {
      const [header, , signature] = (await customer.session()).access_token.split('.')
      const [, claims] = (await customer.session()).access_token.split('.')
      return `${header}.${claims}.${signature}`
    },
    expired: async () =>
      (await forger(assay, customer, 'access')).withClaims({ exp: 1_700_000_300, iat: 1_700_000_000 }),
    wrong_issuer: async () => (await forger(assay, customer, 'access')).withClaims({ iss: 'http://other' }),
    token_revoked: async () => {
      const { access_token: token } = (await customer.issue()).json
      await assay.postForm('/revoke', { token }, bearer(customer.apiKey))
      return token
    },
    session_revoked: async () => {
      const { access_token, refresh_token: token } = await customer.session()
      await assay.postForm('/revoke', { token })
      return access_token
    },
    customer_disabled: async () => {
      const other = await assay.signUp()
      const { access_token } = await other.session()
      const headers = bearer(ADMIN_TOKEN)
      await assay.request(`/admin/customers/${other.id}/disable`, { method: 'POST', headers })
      return access_token
    },
  }

  test.each(Object.entries(cases))('%s', async (reason, make) => {
    const token = await make()
    const explained = await explain(token)
    expect(explained).toMatchObject({ active: false, reason })
    expect(explained.explanation.length).toBeGreaterThan(10)
    expect(explained.remedy.length).toBeGreaterThan(5)
    // The answer contains nothing that could be used.
    expect(JSON.stringify(explained)).not.toContain(token)
  })

  test('text written by a stranger is not repeated', async () => {
    const [header, , signature] = (await customer.session()).access_token.split('.')
    const claims = Buffer.from(JSON.stringify({ sub: 'stranger', jti: 'x' })).toString('base64url')
    const explained = await explain(`${header}.${claims}.${signature}`)
    expect(explained.token).toBeUndefined()
    expect(JSON.stringify(explained)).not.toContain('stranger')
  })
})

test('an API key may not ask, and introspection reveals no more than before', async () => {
  const { refresh_token: token } = await customer.session()
  const asked = await assay.postForm('/introspect/explain', { token }, bearer(customer.apiKey))
  expect(asked).toMatchObject({ status: 400, json: { error: 'unauthorized_client' } })
  await assay.postForm('/revoke', { token })
  expect((await assay.introspect(token)).text).toBe('{"active":false}')
})
