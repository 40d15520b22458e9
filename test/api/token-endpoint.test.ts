import { afterAll, beforeAll, expect, test } from 'vitest'
import { apiKeyOf, encodedBasic } from '../support/credentials.ts'
import { changeCustomer, storedSession } from '../support/sessions.ts'
import {
  basic,
  bearer,
  type Customer,
  claimsOf,
  makeWorld,
  type Replica,
  SERVICE,
  type World,
} from '../support/world.ts'

let world: World
let assay: Replica
let customer: Customer

beforeAll(async () => {
  world = await makeWorld()
  assay = await world.replica()
  customer = await assay.signUp()
})
afterAll(() => world.stop())

const GATEWAY = basic(SERVICE.id, SERVICE.secret)
const authorized = (authorization: string) => ({ Authorization: authorization })
const own = () => authorized(basic(customer.id, customer.apiKey))
const credentials = ({ id, apiKey } = customer) => ({ client_id: id, client_secret: apiKey })
const CLIENT = { grant_type: 'client_credentials' }
const REFRESH = { grant_type: 'refresh_token' }

const token = (form: Record<string, string>, headers: Record<string, string> = {}) =>
  assay.postForm('/token', form, headers)

/** The raw body, for cases that URLSearchParams of a record can't express. */
const rawToken = (body: string, headers: Record<string, string> = {}) =>
  assay.request('/token', {
    method: 'POST',
    headers: { 'Content-Type': 'application/x-www-form-urlencoded', ...headers },
    body,
  })

const outcome = ({ status, json }: { status: number; json: { error?: string } }) =>
  json.error === undefined ? String(status) : `${status} ${json.error}`

test('client_credentials returns an access token about the customer, and no refresh token', async () => {
  const { status, json, headers } = await token({ ...CLIENT, scope: 'read write' }, own())
  expect(status).toBe(200)
  expect(headers.get('cache-control')).toBe('no-store')
  expect(headers.get('pragma')).toBe('no-cache')
  expect(json).toEqual({
    access_token: expect.any(String),
    token_type: 'Bearer',
    expires_in: 300,
    scope: 'read write',
  })
  const claims = claimsOf(json.access_token)
  expect(claims).toMatchObject({ sub: customer.id, client_id: customer.id, aud: 'http://assay.test' })
  expect(claims).not.toHaveProperty('sid')
  expect((await assay.introspect(json.access_token)).json).toMatchObject({
    active: true,
    scope: 'read write',
  })
})

test('by default the scope is that of the key, and the answer includes it', async () => {
  const { api_key } = await apiKeyOf(assay, customer, { scopes: ['read', 'write', 'assay:sessions'] })
  const { json } = await token(CLIENT, bearer(api_key))
  expect(json.scope).toBe('read write')
  expect((await assay.postJson('/issue', {}, bearer(api_key))).json.scope).toBe('read write')
})

test('a scope that the key may not grant is refused, and so is every assay: scope', async () => {
  const { api_key: narrow } = await apiKeyOf(assay, customer, { scopes: ['read', 'assay:sessions'] })
  for (const scope of ['write', 'read write', '*', 'assay:account', 'assay:sessions', 'read assay:x'])
    for (const key of scope.includes('write') ? [narrow] : [narrow, customer.apiKey]) {
      expect(outcome(await token({ ...CLIENT, scope }, bearer(key))), scope).toBe('400 invalid_scope')
      expect(outcome(await assay.postJson('/issue', { scope }, bearer(key)))).toBe('400 invalid_scope')
    }
})

test('an API key is accepted as Bearer and as Basic, raw or form-encoded, and at /token in the body', async () => {
  const { id, apiKey } = customer
  const headers = [`Bearer ${apiKey}`, `bearer  ${apiKey}`, basic(id, apiKey), encodedBasic(id, apiKey)]
  for (const header of headers) {
    expect(outcome(await token(CLIENT, authorized(header)))).toBe('200')
    expect(outcome(await assay.postJson('/issue', {}, authorized(header)))).toBe('200')
  }
  expect(outcome(await token({ ...CLIENT, ...credentials() }))).toBe('200')
})

test('repeated equal credentials are accepted, different ones are not', async () => {
  const neighbour = await assay.signUp()
  const twice = { ...CLIENT, ...credentials() }
  expect(outcome(await token(twice, own()))).toBe('200')
  expect(outcome(await token(twice, bearer(customer.apiKey)))).toBe('200')
  expect(outcome(await token({ ...CLIENT, client_id: customer.id }, own()))).toBe('200')
  for (const form of [
    credentials(neighbour),
    { ...credentials(), client_secret: 'x' },
    { client_id: neighbour.id },
  ])
    expect(outcome(await token({ ...CLIENT, ...form }, own()))).toBe('400 invalid_request')
  const theirs = bearer(neighbour.apiKey)
  expect(outcome(await token(twice, theirs))).toBe('400 invalid_request')
})

test('a Bearer key beside the client_id of another customer is refused', async () => {
  const neighbour = await assay.signUp()
  const answer = await token({ ...CLIENT, client_id: customer.id }, bearer(neighbour.apiKey))
  expect(answer.status).toBeGreaterThanOrEqual(400)
  expect(outcome(await token({ ...CLIENT, client_id: customer.id }, bearer(customer.apiKey)))).toBe('200')
})

test('missing or wrong credentials are 401 with a challenge, at /token and at /issue', async () => {
  const { id, apiKey } = customer
  const typo = `${apiKey.slice(0, -1)}${apiKey.endsWith('x') ? 'y' : 'x'}`
  const neighbour = await assay.signUp()
  const wrong = [
    {},
    ...[
      '',
      'Basic',
      'Basic !',
      'Basic bm8tY29sb24=',
      `Digest ${apiKey}`,
      GATEWAY.replace('Basic', 'Bearer'),
    ].map(authorized),
    ...[typo, 'x', customer.accessToken].map(bearer),
    ...[
      basic(id, typo),
      basic(neighbour.id, apiKey),
      basic(id, ''),
      basic('', apiKey),
      basic(SERVICE.id, 'x'.repeat(32)),
    ].map(authorized),
  ]
  for (const headers of wrong)
    for (const answer of [await token(CLIENT, headers), await assay.postJson('/issue', {}, headers)]) {
      expect(outcome(answer), JSON.stringify(headers)).toBe('401 invalid_client')
      expect(answer.headers.get('www-authenticate')).toMatch(/^Basic /)
      expect(answer.text).not.toContain(apiKey)
    }
  for (const form of [
    { client_id: id },
    { client_id: id, client_secret: typo },
    { client_id: neighbour.id, client_secret: apiKey },
  ])
    expect(outcome(await token({ ...CLIENT, ...form }))).toBe('401 invalid_client')
})

test('a service may not have tokens', async () => {
  const gateway = authorized(GATEWAY)
  expect(outcome(await token(CLIENT, gateway))).toBe('400 unauthorized_client')
  expect(outcome(await assay.postJson('/issue', {}, gateway))).toBe('400 unauthorized_client')
  const { refresh_token, session_id } = await customer.session()
  expect(outcome(await token({ ...REFRESH, refresh_token }, gateway))).toBe('400 unauthorized_client')
  expect((await storedSession(world, session_id)).gen).toBe(1)
})

test('a deleted API key gets no token', async () => {
  const { id, api_key } = await apiKeyOf(assay, customer)
  const login = await assay.postJson('/api/auth/login', {
    email: customer.email,
    password: customer.password,
  })
  expect(outcome(await token(CLIENT, bearer(api_key)))).toBe('200')
  const headers = bearer(login.json.access_token)
  expect((await assay.request(`/api/keys/${id}`, { method: 'DELETE', headers })).status).toBe(204)
  expect(outcome(await token(CLIENT, bearer(api_key)))).toBe('401 invalid_client')
  expect(outcome(await assay.postJson('/issue', {}, bearer(api_key)))).toBe('401 invalid_client')
})

test('an API key gets no token from its expiry on', async () => {
  const { api_key } = await apiKeyOf(assay, customer, { expires_in: 60 })
  expect(outcome(await token(CLIENT, bearer(api_key)))).toBe('200')
  await world.advance(60_000)
  expect(outcome(await token(CLIENT, bearer(api_key)))).toBe('401 invalid_client')
  expect(outcome(await assay.postJson('/issue', {}, bearer(api_key)))).toBe('401 invalid_client')
})

test('a disabled customer gets no token, and gets them again once it is enabled', async () => {
  const alone = await assay.signUp()
  await changeCustomer(world, [assay], alone.id, `state = 'disabled'`)
  expect(outcome(await token(CLIENT, bearer(alone.apiKey)))).toBe('403 customer_disabled')
  expect(outcome(await alone.issue())).toBe('403 customer_disabled')
  await changeCustomer(world, [assay], alone.id, `state = 'active'`)
  expect(outcome(await token(CLIENT, bearer(alone.apiKey)))).toBe('200')
  expect(outcome(await alone.issue())).toBe('200')
})

test('the grant type is required and must be known', async () => {
  expect(outcome(await token({}, own()))).toBe('400 invalid_request')
  expect(outcome(await token({ grant_type: '' }, own()))).toBe('400 invalid_request')
  for (const grant_type of ['password', 'authorization_code', 'implicit', 'Client_Credentials', 'x'])
    expect(outcome(await token({ grant_type }, own()))).toBe('400 unsupported_grant_type')
})

test('the token is for the requested resource or audience (RFC 8707)', async () => {
  const audienceFor = async (more: string) => {
    const { json } = await rawToken(`grant_type=client_credentials&${more}`, own())
    return json.access_token === undefined ? json.error : claimsOf(json.access_token).aud
  }
  const [a, b] = ['https://a.example.com/mcp', 'urn:service:b']
  expect(await audienceFor(`resource=${a}`)).toBe(a)
  expect(await audienceFor('audience=orders')).toBe('orders')
  expect(await audienceFor(`resource=${a}&resource=${b}`)).toEqual([a, b])
  expect(await audienceFor(`resource=${a}&audience=orders`)).toEqual([a, 'orders'])
  expect(await audienceFor(`resource=${a}&audience=${a}`)).toBe(a)
  expect(await audienceFor('resource=&audience=')).toBe('http://assay.test')
  const eleven = Array.from({ length: 11 }, (_, n) => `resource=urn:x:${n}`).join('&')
  for (const bad of ['resource=orders', `resource=${a}%23part`, 'audience=a%20b', 'resource=/path', eleven])
    expect(await audienceFor(bad), bad).toBe('invalid_target')
  expect(await audienceFor('audience=a&audience=b')).toBe('invalid_request')
})

test('a refresh may request a part of its session’s audience for one access token', async () => {
  const [a, b] = ['https://a.example.com', 'urn:service:b']
  let { refresh_token } = await customer.session({ audience: [a, b] })
  const refresh = async (more: Record<string, string>, at = '/token') => {
    const { status, json } = await assay.postForm(at, { ...REFRESH, refresh_token, ...more })
    if (status === 200) refresh_token = json.refresh_token
    return status === 200 ? claimsOf(json.access_token).aud : json.error
  }
  expect(await refresh({ resource: a })).toBe(a)
  expect(await refresh({ resource: b }, '/refresh')).toBe(b)
  expect(await refresh({ resource: a, audience: b })).toEqual([a, b])
  const kept = refresh_token
  for (const more of [
    { resource: 'https://c.example.com' },
    { resource: a, audience: 'c' },
    { resource: 'x' },
  ])
    expect(await refresh(more)).toBe('invalid_target')
  expect(refresh_token).toBe(kept)
  expect(await refresh({})).toEqual([a, b])
  const one = await customer.session({ audience: a })
  refresh_token = one.refresh_token
  expect(await refresh({ resource: b })).toBe('invalid_target')
  expect(await refresh({ resource: a })).toBe(a)
})

test('a repeated parameter is refused, an empty one counts as absent, an unknown one is ignored', async () => {
  const body = 'grant_type=client_credentials'
  for (const more of [body, 'scope=read&scope=read', 'unknown=1&unknown=2', 'client_id=a&client_id=a'])
    expect(outcome(await rawToken(`${body}&${more}`, own())), more).toBe('400 invalid_request')
  // Dovecot sends the second.
  for (const more of ['scope=', 'client_id=&client_secret=', 'unknown=1', 'scope=&scope=read', '&&'])
    expect(outcome(await rawToken(`${body}&${more}`, own())), more).toBe('200')
})

test('a malformed scope is invalid_scope on every endpoint that takes one', async () => {
  const { refresh_token } = await customer.session()
  for (const scope of [' ', 'a  b', 'a"b', 'a\\b', '名', 'x'.repeat(1025)]) {
    const answers = [
      await token({ ...CLIENT, scope }, own()),
      await assay.postJson('/issue', { scope }, own()),
      await token({ ...REFRESH, refresh_token, scope }),
      await assay.postForm('/refresh', { refresh_token, scope }),
      await assay.postJson('/api/auth/refresh', { refresh_token, scope }),
    ]
    for (const answer of answers) {
      expect(outcome(answer), scope).toBe('400 invalid_scope')
      expect(answer.json.error_description).toMatch(/^scope: /)
    }
  }
})

test('a Basic header with an empty secret identifies a client without a secret, as sent by Go’s x/oauth2', async () => {
  const neighbour = await assay.signUp()
  const named = (id: string) => authorized(basic(id, ''))
  const { refresh_token } = await customer.session()
  expect(outcome(await token({ ...REFRESH, refresh_token }, named(neighbour.id)))).toBe('400 invalid_grant')
  const refreshed = await token({ ...REFRESH, refresh_token }, named(customer.id))
  expect(outcome(refreshed)).toBe('200')
  const form = { ...REFRESH, refresh_token: refreshed.json.refresh_token }
  expect(outcome(await token({ ...form, client_id: neighbour.id }, named(customer.id)))).toBe(
    '400 invalid_request',
  )
  expect(outcome(await token({ ...CLIENT, ...credentials() }, named(customer.id)))).toBe('200')
  expect(outcome(await token(CLIENT, named(customer.id)))).toBe('401 invalid_client')
  const revoked = (headers: Record<string, string>) =>
    assay.postForm('/revoke', { token: form.refresh_token }, headers)
  expect(outcome(await revoked(named(neighbour.id)))).toBe('200')
  expect((await assay.introspect(form.refresh_token, `Bearer ${customer.apiKey}`)).json.active).toBe(true)
  expect(outcome(await revoked(named(customer.id)))).toBe('200')
  expect(outcome(await token(form))).toBe('400 invalid_grant')
})

test('an unreadable form or another content type is refused', async () => {
  expect(outcome(await rawToken('grant_type=client_credentials%00', own()))).toBe('400 invalid_request')
  for (const type of ['application/json', 'text/plain', 'multipart/form-data; boundary=x', ''])
    expect(outcome(await rawToken('grant_type=client_credentials', { ...own(), 'Content-Type': type }))).toBe(
      '400 invalid_request',
    )
  const upper = { ...own(), 'Content-Type': 'Application/X-WWW-Form-URLEncoded; charset=UTF-8' }
  expect(outcome(await rawToken('grant_type=client_credentials', upper))).toBe('200')
  expect(outcome(await rawToken(`grant_type=client_credentials&a=${'x'.repeat(16_384)}`, own()))).toBe(
    '413 invalid_request',
  )
})
