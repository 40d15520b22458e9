import { randomBytes } from 'node:crypto'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { encodedBasic } from '../support/credentials.ts'
import { auditOf, changeCustomer, storedSession } from '../support/sessions.ts'
import {
  type Answer,
  basic,
  bearer,
  type Customer,
  claimsOf,
  makeWorld,
  type Replica,
  type World,
} from '../support/world.ts'

let world: World
let assay: Replica
let customer: Customer
let neighbour: Customer

beforeAll(async () => {
  world = await makeWorld()
  assay = await world.replica()
  customer = await assay.signUp()
  neighbour = await assay.signUp()
})
afterAll(() => world.stop())

const outcome = ({ status, json }: Answer) =>
  json.error === undefined ? String(status) : `${status} ${json.error}`

const refresh = (form: Record<string, string>, headers: Record<string, string> = {}) =>
  assay.postForm('/refresh', form, headers)

async function expectUntouched(id: string, gen = 1) {
  expect(await storedSession(world, id)).toMatchObject({ gen, revoked: false })
  expect(await auditOf(world, id)).toHaveLength(gen)
}

test('a session is refreshed at /refresh, /api/auth/refresh and /token, by JSON or by form', async () => {
  let { refresh_token } = await customer.session()
  const ways = [
    () => assay.postForm('/refresh', { refresh_token }),
    () => assay.postJson('/refresh', { refresh_token }),
    () =>
      assay.postJson('/refresh', { refresh_token }, { 'Content-Type': 'application/json; charset=utf-8' }),
    () => assay.postJson('/api/auth/refresh', { refresh_token }),
    () => assay.postForm('/api/auth/refresh', { refresh_token }),
    () => assay.postForm('/token', { grant_type: 'refresh_token', refresh_token }),
  ]
  for (const [turn, way] of ways.entries()) {
    const { status, json, headers } = await way()
    expect(status).toBe(200)
    expect(headers.get('cache-control')).toBe('no-store')
    const { session_id, ...tokens } = json
    expect(tokens).toEqual({
      access_token: expect.any(String),
      token_type: 'Bearer',
      expires_in: 300,
      refresh_token: expect.any(String),
      scope: 'read write',
    })
    expect(claimsOf(json.access_token)).toMatchObject({ sid: session_id, gen: turn + 2, sub: 'user-1' })
    refresh_token = json.refresh_token
  }
})

test('the media type of a refresh is case-insensitive', async () => {
  const { refresh_token } = await customer.session()
  const answer = await assay.postJson('/refresh', { refresh_token }, { 'Content-Type': 'Application/JSON' })
  expect(outcome(answer)).toBe('200')
})

test('a scope narrows only the access token that it was requested for', async () => {
  const first = await customer.session()
  const narrow = (await refresh({ refresh_token: first.refresh_token, scope: 'read' })).json
  expect([narrow.scope, claimsOf(narrow.access_token).scope]).toEqual(['read', 'read'])
  expect((await assay.verify(narrow.access_token, '/verify?scope=write')).status).toBe(403)
  expect((await assay.verify(first.access_token, '/verify?scope=write')).status).toBe(200)
  // The retry of a lost answer may request another scope.
  const wide = (await refresh({ refresh_token: first.refresh_token })).json
  expect([wide.scope, wide.refresh_token]).toEqual(['read write', narrow.refresh_token])
  const next = (await refresh({ refresh_token: wide.refresh_token })).json
  expect(next.scope).toBe('read write')
  const json = (await assay.postJson('/refresh', { refresh_token: next.refresh_token, scope: 'write read' }))
    .json
  expect(json.scope).toBe('write read')
})

test('a scope that the session lacks is refused, and the refresh token is not used up', async () => {
  const { refresh_token, session_id } = await customer.session()
  for (const scope of ['admin', 'read admin', 'rea', 'READ', 'assay:account', '*'])
    expect(outcome(await refresh({ refresh_token, scope })), scope).toBe('400 invalid_scope')
  for (const scope of [' ', 'read  write', 'a"b'])
    expect(outcome(await refresh({ refresh_token, scope }))).toBe('400 invalid_scope')
  await expectUntouched(session_id)
  const bare = (await customer.issue({ refresh: true })).json
  expect(bare).not.toHaveProperty('scope')
  expect(outcome(await refresh({ refresh_token: bare.refresh_token, scope: 'read' }))).toBe(
    '400 invalid_scope',
  )
  expect((await refresh({ refresh_token: bare.refresh_token })).json).not.toHaveProperty('scope')
})

test('a refresh without a token, or an unreadable one, is refused with an error that says so', async () => {
  const { refresh_token, session_id } = await customer.session()
  const raw = (body: string, type: string, path = '/refresh') =>
    assay.request(path, { method: 'POST', headers: { 'Content-Type': type }, body })
  const form = 'application/x-www-form-urlencoded'
  const answers = [
    await refresh({}),
    await refresh({ refresh_token: '' }),
    await raw(`refresh_token=${refresh_token}&refresh_token=${refresh_token}`, form),
    await raw(`refresh_token=${refresh_token}`, 'text/plain'),
    await raw('', form),
    await raw(`refresh_token=${refresh_token}%00`, form),
    await raw('{}', 'application/json'),
    await raw('{"refresh_token":7}', 'application/json'),
    await raw(`{"refresh_token":"${refresh_token}","scope":null}`, 'application/json'),
    await raw(`{"refresh_token":"${refresh_token}","scpoe":"read"}`, 'application/json'),
    await raw('grant_type=refresh_token', form, '/token'),
  ]
  expect(answers.map(outcome)).toEqual(answers.map(() => '400 invalid_request'))
  await expectUntouched(session_id)
})

test('client credentials are optional, but must be right if sent', async () => {
  const { id, apiKey } = customer
  let { refresh_token, session_id } = await customer.session()
  const wrong: [Record<string, string>, Record<string, string>][] = [
    [{}, bearer(`${apiKey.slice(0, -6)}aaaaaa`)],
    [{}, { Authorization: basic(id, 'x') }],
    [{}, { Authorization: basic(neighbour.id, apiKey) }],
    [{ client_id: id, client_secret: 'x' }, {}],
  ]
  for (const [form, headers] of wrong)
    expect(outcome(await refresh({ refresh_token, ...form }, headers))).toBe('401 invalid_client')
  await expectUntouched(session_id)
  const right: [Record<string, string>, Record<string, string>][] = [
    [{}, bearer(apiKey)],
    [{}, { Authorization: basic(id, apiKey) }],
    [{}, { Authorization: encodedBasic(id, apiKey) }],
    [{ client_id: id, client_secret: apiKey }, {}],
    [{ client_id: id }, {}],
    [{ client_id: '', client_secret: '' }, {}],
  ]
  for (const [form, headers] of right) {
    const answer = await refresh({ refresh_token, ...form }, headers)
    expect(outcome(answer)).toBe('200')
    refresh_token = answer.json.refresh_token
  }
})

test('a client that sends its old access token with a refresh is served', async () => {
  const { access_token, refresh_token } = await customer.session()
  await world.advance(301_000)
  expect((await assay.verify(access_token)).status).toBe(401)
  expect(outcome(await refresh({ refresh_token }, bearer(access_token)))).toBe('200')
})

test('a client that tries to authenticate with a malformed Basic header is refused', async () => {
  const { refresh_token, session_id } = await customer.session()
  for (const header of ['Basic', 'Basic !', `Basic ${Buffer.from('no colon').toString('base64')}`])
    expect(outcome(await refresh({ refresh_token }, { Authorization: header })), header).toBe(
      '401 invalid_client',
    )
  await expectUntouched(session_id)
})

test(`another client's credentials are refused and end nothing, with any token of the session`, async () => {
  const { refresh_token: stale, session_id } = await customer.session()
  let current = stale
  for (let turn = 0; turn < 3; turn++)
    current = (await refresh({ refresh_token: current })).json.refresh_token
  const { id, apiKey } = neighbour
  for (const refresh_token of [stale, current])
    for (const [form, headers] of [
      [{}, bearer(apiKey)],
      [{}, { Authorization: basic(id, apiKey) }],
      [{ client_id: id, client_secret: apiKey }, {}],
      [{ client_id: id }, {}],
    ] as [Record<string, string>, Record<string, string>][]) {
      expect(outcome(await refresh({ refresh_token, ...form }, headers))).toBe('400 invalid_grant')
      const grant = { grant_type: 'refresh_token', refresh_token, ...form }
      expect(outcome(await assay.postForm('/token', grant, headers))).toBe('400 invalid_grant')
    }
  await expectUntouched(session_id, 4)
  expect(outcome(await refresh({ refresh_token: current }))).toBe('200')
})

test('garbage never ends a session, however similar to one of its tokens', async () => {
  const session = await customer.session()
  let current = session.refresh_token
  for (let turn = 0; turn < 3; turn++)
    current = (await refresh({ refresh_token: current })).json.refresh_token
  for (const token of [session.refresh_token, current])
    for (const garbage of spoiled(token))
      expect(outcome(await refresh({ refresh_token: garbage })), garbage.slice(0, 40)).toBe(
        '400 invalid_grant',
      )
  const others = [session.access_token, customer.apiKey, (await neighbour.session()).access_token]
  for (const text of others) expect(outcome(await refresh({ refresh_token: text }))).toBe('400 invalid_grant')
  await expectUntouched(session.session_id, 4)
  expect(outcome(await refresh({ refresh_token: current }))).toBe('200')
})

/** Near misses of a token: its parts cut, doubled and swapped, and its claims changed under the old signature. */
function spoiled(token: string): string[] {
  const [header, claims, signature] = token.split('.') as [string, string, string]
  const other = (changed: object) =>
    Buffer.from(JSON.stringify({ ...claimsOf(token), ...changed })).toString('base64url')
  const flipped = (text: string) => `${text.startsWith('A') ? 'B' : 'A'}${text.slice(1)}`
  return [
    ...[1, 2, 5, 1_000].map(gen => `${header}.${other({ gen: gen + 10 })}.${signature}`),
    `${header}.${other({ exp: 9_999_999_999 })}.${signature}`,
    `${header}.${other({ client_id: neighbour.id })}.${signature}`,
    `${header}.${claims}.${flipped(signature)}`,
    `${header}.${claims}.`,
    `${header}.${claims}`,
    `${header}.${claims}.${signature}.${signature}`,
    `${flipped(header)}.${claims}.${signature}`,
    `${header}.${claims}.${randomBytes(64).toString('base64url')}`,
    ` ${token}`,
    `${token}=`,
    token.slice(0, -1),
    'x'.repeat(8_193),
    '..',
  ]
}

test('a refresh reports that the customer is disabled, with its credentials or without', async () => {
  const alone = await assay.signUp()
  const { refresh_token } = await alone.session()
  await changeCustomer(world, [assay], alone.id, `state = 'disabled'`)
  expect(outcome(await refresh({ refresh_token }, bearer(alone.apiKey)))).toBe('403 customer_disabled')
  expect(outcome(await refresh({ refresh_token }))).toBe('403 customer_disabled')
})
