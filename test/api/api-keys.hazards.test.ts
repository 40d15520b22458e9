import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import {
  basic,
  bearer,
  type Customer,
  makeWorld,
  type Replica,
  SERVICE,
  type World,
} from '../support/world.ts'

/** H55: a credential that was given to someone else must not open the account that gave it. */

let world: World
let assay: Replica
let customer: Customer

beforeAll(async () => {
  world = await makeWorld()
  assay = await world.replica()
  customer = await assay.signUp()
  await assay.signUp()
})
afterAll(() => world.stop())

type Headers = Record<string, string>

const keyWith = async (scopes?: string[]): Promise<string> =>
  (await assay.postJson('/api/keys', { scopes }, bearer(customer.accessToken))).json.api_key

/** Every request that might open the account. */
const ASKED: [name: string, body: object][] = [
  ['nothing', {}],
  ["the customer's own id as subject", { subject: 'OWN' }],
  ['the scope of the account', { subject: 'OWN', scope: 'assay:account', refresh: true }],
  ['the scope of the account among others', { subject: 'OWN', scope: 'read assay:account' }],
  ['the scope of sessions', { subject: 'OWN', scope: 'assay:sessions' }],
  ['both', { subject: 'OWN', scope: 'assay:account assay:sessions', refresh: true }],
  ['any scope', { subject: 'OWN', scope: '*' }],
  ['a scope in capitals', { subject: 'OWN', scope: 'ASSAY:ACCOUNT ASSAY:SESSIONS' }],
  ['a scope that begins alike', { subject: 'OWN', scope: 'assay assay.account account', refresh: true }],
  ['a scope with more in it', { subject: 'OWN', scope: 'x,assay:account x=assay:account' }],
  ['the scope as an audience', { subject: 'OWN', audience: ['assay:account', 'http://assay.test'] }],
  ['the scope as a claim', { subject: 'OWN', claims: { scope: 'assay:account', sub: 'x' }, refresh: true }],
  ['the scope as subject', { subject: 'assay:account' }],
]

/** One token of each kind that the key can obtain; refused kinds are missing. */
async function tokensOf(apiKey: string): Promise<string[]> {
  const found: string[] = []
  for (const [, body] of ASKED) {
    const own = JSON.parse(JSON.stringify(body).replaceAll('OWN', customer.id))
    const { status, json } = await assay.postJson('/issue', own, bearer(apiKey))
    expect([200, 400]).toContain(status)
    if (status !== 200) continue
    found.push(json.access_token)
    if (json.refresh_token) found.push(json.refresh_token, ...(await refreshed(json.refresh_token)))
  }
  return [...found, ...(await clientCredentials(apiKey))]
}

async function refreshed(refreshToken: string): Promise<string[]> {
  const found: string[] = []
  for (const scope of [undefined, 'assay:account', '*']) {
    const form = { refresh_token: refreshToken, ...(scope && { scope }) }
    const { status, json } = await assay.postForm('/refresh', form)
    expect(status).toBe(scope === undefined ? 200 : 400)
    if (status === 200) found.push(json.access_token)
  }
  return found
}

async function clientCredentials(apiKey: string): Promise<string[]> {
  const found: string[] = []
  for (const scope of [undefined, 'assay:account', 'assay:sessions', '*', 'ASSAY:ACCOUNT']) {
    const form = { grant_type: 'client_credentials', ...(scope && { scope }) }
    const { status, json } = await assay.postForm('/token', form, {
      Authorization: basic(customer.id, apiKey),
    })
    if (status === 200) found.push(json.access_token)
  }
  return found
}

const post = (path: string, body: object) => (headers: Headers) => assay.postJson(path, body, headers)
const send = (method: string, path: () => string) => (headers: Headers) =>
  assay.request(path(), { method, headers })
const keyId = () => customer.apiKey.split('_')[2]!

const ACCOUNT: [route: string, call: (headers: Headers) => ReturnType<Replica['request']>][] = [
  ['GET /api/keys', send('GET', () => '/api/keys')],
  ['POST /api/keys', post('/api/keys', { scopes: ['*', 'assay:sessions'] })],
  ['DELETE /api/keys/{id}', send('DELETE', () => `/api/keys/${keyId()}`)],
  ['GET /api/audit', send('GET', () => '/api/audit')],
  [
    'POST /api/auth/password',
    post('/api/auth/password', { password: 'guess', new_password: 'new password' }),
  ],
  ['POST /api/auth/logout', send('POST', () => '/api/auth/logout')],
]

let session: string
const SESSIONS: typeof ACCOUNT = [
  ['GET /api/sessions', send('GET', () => '/api/sessions')],
  ['DELETE /api/sessions/{id}', send('DELETE', () => `/api/sessions/${session}`)],
]

/** State that no request below may change. */
const state = () =>
  world.admin.query(`select
    (select json_agg(json_build_array(id, password_hash, state)) from assay.customers) as customers,
    (select count(*)::int from assay.api_keys) as keys,
    (select count(*)::int from assay.sessions where revoked_at is not null) as ended`)

async function expectShut(routes: typeof ACCOUNT, presented: Headers[]) {
  const before = await state()
  for (const [route, call] of routes)
    for (const headers of presented) {
      const { status, json } = await call(headers)
      expect([401, 403], route).toContain(status)
      expect(Object.keys(json)).toEqual(expect.arrayContaining(['error']))
      expect(json).not.toHaveProperty('keys')
      expect(json).not.toHaveProperty('events')
      expect(json).not.toHaveProperty('sessions')
    }
  expect(await state()).toEqual(before)
}

const everyWay = (secret: string): Headers[] => [
  bearer(secret),
  { Authorization: basic(customer.id, secret) },
  { Authorization: basic('', secret) },
]

describe.each([
  ['the key made at signup', undefined],
  ['a key for any scope', ['*']],
  ['a key for sessions', ['assay:sessions']],
  ['a key for one scope', ['read']],
  ['a key for nothing', []],
])('H55 %s', (name, scopes) => {
  let key: string
  let tokens: string[]
  const first = name === 'the key made at signup'

  beforeAll(async () => {
    key = first ? customer.apiKey : await keyWith(scopes)
    tokens = await tokensOf(key)
    session = (await customer.session()).session_id
  })

  test('obtains tokens, but none with an assay: scope', async () => {
    expect(tokens.length).toBeGreaterThan(0)
    for (const token of tokens) {
      const { json } = await assay.introspect(token)
      for (const scope of json.scopes ?? []) expect(scope).not.toMatch(/^assay:|^\*$/)
    }
  })

  test('does not open the account, nor does any token that it obtains', async () => {
    await expectShut(ACCOUNT, [...everyWay(key), ...tokens.map(bearer)])
  })

  test('opens no session with a token, and with the key itself only if it has assay:sessions', async () => {
    await expectShut(SESSIONS, tokens.map(bearer))
    const may = first || scopes?.includes('assay:sessions')
    if (!may) return expectShut(SESSIONS, everyWay(key))
    const { status, json } = await assay.get('/api/sessions', key)
    expect(status).toBe(200)
    expect(json.sessions.length).toBeGreaterThan(0)
  })
})

test("H55 the account is not opened by a service, a refresh token or another customer's token", async () => {
  const stranger = await assay.signUp()
  const presented = [
    bearer(SERVICE.secret),
    { Authorization: basic(SERVICE.id, SERVICE.secret) },
    bearer(customer.refreshToken),
    {},
  ]
  await expectShut([...ACCOUNT, ...SESSIONS], presented)
  expect((await assay.get('/api/keys', stranger.accessToken)).json.keys).toHaveLength(1)
  for (const path of [`/api/keys/${keyId()}`, `/api/sessions/${session}`]) {
    const init = { method: 'DELETE', headers: bearer(stranger.accessToken) }
    expect((await assay.request(path, init)).status).toBe(404)
  }
})

test('H55 the scope of the account comes from signup and login, and a refresh keeps it', async () => {
  const { access_token } = (await assay.refresh(customer.refreshToken)).json
  expect((await assay.get('/api/keys', access_token)).status).toBe(200)
})
