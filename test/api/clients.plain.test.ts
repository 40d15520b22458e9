import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { checkedFetch, makeDiscoverable } from '../support/foreign.ts'
import {
  basic,
  bearer,
  type Customer,
  makeWorld,
  type Replica,
  SERVICE,
  type World,
} from '../support/world.ts'

/** Requests of other clients, sent as plain HTTP. Each client authenticates in its own way. */

let world: World
let assay: Replica
let issuer: string
let customer: Customer
let checked: ReturnType<typeof checkedFetch>

beforeAll(async () => {
  world = await makeWorld()
  ;({ assay, issuer } = await makeDiscoverable(world))
  customer = await assay.signUp()
})
afterAll(() => world.stop())
beforeEach(async () => {
  await assay.serve()
  checked = checkedFetch()
})

type Headers = Record<string, string>

async function post(path: string, form: Record<string, string>, headers: Headers = {}) {
  const response = await checked(issuer + path, {
    method: 'POST',
    headers: { 'Content-Type': 'application/x-www-form-urlencoded;charset=UTF-8', ...headers },
    body: new URLSearchParams(form).toString(),
  })
  // biome-ignore lint/suspicious/noExplicitAny: tests state which members they expect.
  return { status: response.status, headers: response.headers, json: (await response.json()) as any }
}

describe('Authlib, which sends Basic credentials raw', () => {
  const raw = () => ({ Authorization: basic(customer.id, customer.apiKey), Accept: 'application/json' })

  test('gets, introspects and revokes a token', async () => {
    const got = await post('/token', { grant_type: 'client_credentials', scope: 'read' }, raw())
    expect(got).toMatchObject({ status: 200, json: { token_type: 'Bearer', expires_in: 300 } })
    const form = { token: got.json.access_token, token_type_hint: 'access_token' }
    expect((await post('/introspect', form, raw())).json).toMatchObject({ active: true, scope: 'read' })
    expect(await post('/revoke', form, raw())).toMatchObject({ status: 200, json: {} })
    expect((await post('/introspect', form, raw())).json).toEqual({ active: false })
  })

  test('refreshes a session', async () => {
    const { refresh_token } = await customer.session()
    const refreshed = await post('/token', { grant_type: 'refresh_token', refresh_token }, raw())
    expect(refreshed.status).toBe(200)
    expect(refreshed.json.refresh_token).not.toBe(refresh_token)
  })

  test('is refused with a wrong secret, with a challenge that names a supported method', async () => {
    const wrong = { Authorization: basic(customer.id, 'wrong') }
    const refused = await post('/token', { grant_type: 'client_credentials' }, wrong)
    expect(refused).toMatchObject({ status: 401, json: { error: 'invalid_client' } })
    expect(refused.headers.get('www-authenticate')).toMatch(/^Basic /)
  })
})

test('requests-oauthlib gets a token, with its client_id in the form beside Basic', async () => {
  const form = { grant_type: 'client_credentials', client_id: customer.id }
  const headers = { Authorization: basic(customer.id, customer.apiKey) }
  expect((await post('/token', form, headers)).status).toBe(200)
  const foreign = await post('/token', { ...form, client_id: 'another' }, headers)
  expect(foreign).toMatchObject({ status: 400, json: { error: 'invalid_request' } })
})

describe('lua-resty-openidc, which sends its credentials in the header and in the form', () => {
  const { id, secret } = SERVICE
  const both = { client_id: id, client_secret: secret }
  const headers = { Authorization: basic(id, secret), Accept: 'application/json' }

  test('introspects a token', async () => {
    const { access_token } = await customer.session()
    const { status, json } = await post('/introspect', { token: access_token, ...both }, headers)
    expect(status).toBe(200)
    expect(json).toMatchObject({ active: true, sub: 'user-1', client_id: customer.id })
    expect(json.exp).toBeTypeOf('number')
  })

  test('is refused when the two differ', async () => {
    const form = { token: 'nonsense', ...both, client_secret: `${secret}x` }
    const { status, json } = await post('/introspect', form, headers)
    expect([status, json.error]).toEqual([400, 'invalid_request'])
  })
})

describe('Dovecot', () => {
  const get = async (headers: Headers) => (await checked(`${issuer}/introspect`, { headers })).text()

  test('asks in the name of the token itself, and never gets a 401, which it would treat as an outage', async () => {
    const { access_token, refresh_token } = await customer.session()
    expect(JSON.parse(await get(bearer(access_token)))).toMatchObject({ active: true, sub: 'user-1' })
    await post('/revoke', { token: access_token }, bearer(customer.apiKey))
    for (const headers of [bearer(access_token), bearer(refresh_token), bearer('nonsense'), bearer('')])
      expect(await get(headers)).toBe('{"active":false}')
  })

  test('asks by POST with empty form credentials beside those of its URL', async () => {
    const { access_token: token } = await customer.session()
    const form = { token, client_id: '', client_secret: '' }
    const { id, secret } = SERVICE
    const { json } = await post('/introspect', form, { Authorization: basic(id, secret) })
    expect(json).toMatchObject({ active: true, sub: 'user-1' })
    expect(await post('/introspect', form)).toMatchObject({ status: 401, json: { error: 'invalid_client' } })
  })
})

describe('Go x/oauth2, which detects how to send its secret', () => {
  /** Tries Basic first, and on any failure the form. The last answer counts. */
  async function retrieve(form: Record<string, string>, secret: string) {
    const escaped = basic(encodeURIComponent(customer.id), encodeURIComponent(secret))
    const first = await post('/token', form, { Authorization: escaped })
    if (first.status === 200) return first
    return post('/token', { ...form, client_id: customer.id, client_secret: secret })
  }

  test('gets a token at the first attempt', async () => {
    const { json } = await retrieve(
      { grant_type: 'client_credentials', scope: 'read write' },
      customer.apiKey,
    )
    expect(json).toMatchObject({ token_type: 'Bearer', expires_in: 300 })
    expect(checked.sent).toHaveLength(1)
  })

  test('would get one at the second attempt', async () => {
    const form = { grant_type: 'client_credentials', client_id: customer.id, client_secret: customer.apiKey }
    expect((await post('/token', form)).status).toBe(200)
  })

  test('reports the error of the second attempt, which is as clear as that of the first', async () => {
    const refused = await retrieve({ grant_type: 'client_credentials' }, 'wrong')
    expect(refused).toMatchObject({ status: 401, json: { error: 'invalid_client' } })
    expect(checked.sent).toHaveLength(2)
  })

  test('sending a refused refresh twice ends no session', async () => {
    const { refresh_token } = await customer.session()
    const form = { grant_type: 'refresh_token', refresh_token }
    expect((await retrieve(form, 'wrong')).json.error).toBe('invalid_client')
    expect((await retrieve(form, customer.apiKey)).status).toBe(200)
  })
})
