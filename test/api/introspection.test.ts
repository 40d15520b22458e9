import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import {
  ADMIN_TOKEN,
  basic,
  bearer,
  type Customer,
  claimsOf,
  makeWorld,
  type Replica,
  SERVICE,
  type Tokens,
  type World,
} from '../support/world.ts'

let world: World
let assay: Replica
let customer: Customer
let other: Customer
let tokens: Tokens

beforeAll(async () => {
  world = await makeWorld()
  assay = await world.replica()
  customer = await assay.signUp()
  other = await assay.signUp()
  tokens = await customer.session()
})
afterAll(() => world.stop())

const { id, secret } = SERVICE
const SERVER = basic(id, secret)
const INACTIVE = '{"active":false}'
const encoded = (text: string) => text.replace(/\W|_/g, c => `%${c.charCodeAt(0).toString(16).toUpperCase()}`)

test('the answer for an active token has exactly the documented members', async () => {
  const { access_token } = await customer.session({ audience: ['a', 'b'], claims: { plan: 'pro' } })
  const claims = claimsOf(access_token)
  const { status, headers, json } = await assay.introspect(access_token)
  expect(status).toBe(200)
  expect(headers.get('content-type')).toBe('application/json')
  expect(headers.get('cache-control')).toBe('no-store')
  expect(json).toEqual({
    active: true,
    iss: 'http://assay.test',
    sub: 'user-1',
    client_id: customer.id,
    aud: ['a', 'b'],
    scope: 'read write',
    scopes: ['read', 'write'],
    token_type: 'Bearer',
    exp: claims.exp,
    iat: claims.iat,
    jti: claims.jti,
    sid: claims.sid,
    claims: { plan: 'pro' },
  })
  for (const time of [json.exp, json.iat]) expect(Number.isInteger(time)).toBe(true)
})

test('a token without session and scope has neither sid nor null members', async () => {
  const { json } = await customer.issue()
  const { json: told } = await assay.introspect(json.access_token)
  const members = 'active iss sub client_id aud scope scopes token_type exp iat jti'.split(' ')
  expect(Object.keys(told).sort()).toEqual(members.sort())
  expect(told).toMatchObject({ sub: customer.id, aud: 'http://assay.test', scope: '', scopes: [] })
})

describe('H18 a token that the caller may not see gets the same inactive answer, byte for byte (GHSA-9xx5-cv6j-x533)', () => {
  /** Two such answers differ only in request id and date. */
  const shape = async (token: string, authorization?: string) => {
    const { status, headers, text } = await assay.introspect(token, authorization)
    headers.delete('x-request-id')
    // Depends only on the replica's state, not on the token.
    expect(headers.has('x-assay-age')).toBe(true)
    headers.delete('x-assay-age')
    return { status, text, headers: [...headers] }
  }

  test('garbage, expired, revoked and refresh tokens, to a service', async () => {
    const expiring = (await customer.issue({ expires_in: 1 })).json.access_token
    const revoked = (await customer.issue()).json.access_token
    await assay.postForm('/revoke', { token: revoked }, bearer(customer.apiKey))
    await world.advance(2_000)
    const garbage = await shape('garbage')
    expect(garbage).toMatchObject({ status: 200, text: INACTIVE })
    const { refresh_token, access_token } = tokens
    const dead = [expiring, revoked, refresh_token, customer.apiKey, ADMIN_TOKEN, secret, `${access_token} `]
    for (const token of dead) expect(await shape(token)).toEqual(garbage)
  })

  test("another customer's tokens, to an API key", async () => {
    const key = `Bearer ${other.apiKey}`
    const garbage = await shape('garbage', key)
    for (const token of [tokens.access_token, tokens.refresh_token, customer.accessToken])
      expect(await shape(token, key)).toEqual(garbage)
    expect((await assay.introspect(tokens.access_token, `Bearer ${customer.apiKey}`)).json.active).toBe(true)
  })

  test('missing or wrong credentials get no introspection answer', async () => {
    const wrong = [
      '',
      'Bearer garbage',
      `Bearer ${tokens.access_token}`,
      `Bearer ${customer.accessToken}`,
      `Bearer ${ADMIN_TOKEN}`,
      `Bearer ${secret}`,
      `Bearer ${customer.apiKey.slice(0, -1)}${customer.apiKey.endsWith('x') ? 'y' : 'x'}`,
      basic(id, 'wrong'),
      basic('other', secret),
      basic(other.id, customer.apiKey),
      basic(id, ''),
    ]
    for (const authorization of wrong)
      for (const token of [tokens.access_token, 'garbage']) {
        const { status, json, headers } = await assay.introspect(token, authorization)
        expect([status, json.error]).toEqual([401, 'invalid_client'])
        expect(headers.get('www-authenticate')).toContain('Basic')
      }
  })
})

describe('a refresh token', () => {
  test("is active for its own customer's API key, and has no token_type", async () => {
    const claims = claimsOf(tokens.refresh_token)
    const { json } = await assay.introspect(tokens.refresh_token, `Bearer ${customer.apiKey}`)
    const { gen: _, ...rest } = claims
    // The expiry of an idle session, which is earlier than the token's own exp.
    const exp = claims.iat + 30 * 86_400
    expect(json).toEqual({ active: true, ...rest, exp, scope: 'read write', scopes: ['read', 'write'] })
    expect(claims.exp).toBe(claims.iat + 90 * 86_400)
    expect(json).toMatchObject({ aud: 'refresh', sub: 'user-1', client_id: customer.id })
  })

  test('is inactive to a service, which would let it in', async () => {
    expect((await assay.introspect(tokens.refresh_token)).text).toBe(INACTIVE)
  })

  test('is inactive once it was used, and once its session has ended', async () => {
    const { refresh_token } = await customer.session()
    const next = (await assay.refresh(refresh_token)).json
    const activity = async (token: string) =>
      (await assay.introspect(token, `Bearer ${customer.apiKey}`)).json.active
    expect(await activity(refresh_token)).toBe(false)
    expect(await activity(next.refresh_token)).toBe(true)
    await assay.postForm('/revoke', { token: next.refresh_token })
    expect(await activity(next.refresh_token)).toBe(false)
  })
})

describe('callers may send their credentials', () => {
  const ask = (form: Record<string, string>, authorization?: string) =>
    assay.postForm(
      '/introspect',
      { token: tokens.access_token, ...form },
      authorization === undefined ? {} : { Authorization: authorization },
    )
  const active = async (form: Record<string, string>, authorization?: string) => {
    const { status, json } = await ask(form, authorization)
    return status === 200 && json.active
  }

  test('as Bearer', async () => {
    expect(await active({}, `Bearer ${customer.apiKey}`)).toBe(true)
    expect(await active({}, `bearer ${customer.apiKey}`)).toBe(true)
  })

  test('as Basic, raw and form-urlencoded', async () => {
    expect(await active({}, SERVER)).toBe(true)
    expect(await active({}, basic(encoded(id), encoded(secret)))).toBe(true)
    expect(await active({}, basic(customer.id, customer.apiKey))).toBe(true)
    expect(customer.apiKey).toContain('_')
    expect(await active({}, basic(customer.id, encoded(customer.apiKey)))).toBe(true)
  })

  test('in the form', async () => {
    expect(await active({ client_id: id, client_secret: secret })).toBe(true)
    expect(await active({ client_id: customer.id, client_secret: customer.apiKey })).toBe(true)
    expect(await active({ client_secret: customer.apiKey })).toBe(true)
  })

  test('twice, if they are equal', async () => {
    expect(await active({ client_id: id, client_secret: secret }, SERVER)).toBe(true)
    expect(await active({ client_id: customer.id }, basic(customer.id, customer.apiKey))).toBe(true)
    expect(await active({ client_id: '', client_secret: '' }, SERVER)).toBe(true)
  })

  test.each([
    ['another secret', { client_id: id, client_secret: 'x' }],
    ['another client', { client_id: 'other', client_secret: secret }],
    ['another client alone', { client_id: 'other' }],
  ])('twice with %s: 400', async (_, form) => {
    const { status, json } = await ask(form as Record<string, string>, SERVER)
    expect([status, json.error]).toEqual([400, 'invalid_request'])
  })
})

test('a wrong or unknown hint is ignored', async () => {
  for (const hint of ['access_token', 'refresh_token', 'nonsense', '']) {
    const form = { token: tokens.access_token, token_type_hint: hint }
    expect((await assay.postForm('/introspect', form, { Authorization: SERVER })).json.active).toBe(true)
  }
})

test('a request without exactly one token in a form gets an error that says so', async () => {
  const headers = { Authorization: SERVER }
  const twice = new URLSearchParams([
    ['token', tokens.access_token],
    ['token', 'x'],
  ])
  const answers = [
    await assay.postForm('/introspect', {}, headers),
    await assay.postForm('/introspect', { token: '' }, headers),
    await assay.request('/introspect', { method: 'POST', headers, body: twice }),
    await assay.postJson('/introspect', { token: tokens.access_token }, headers),
  ]
  for (const { status, json } of answers) expect([status, json.error]).toEqual([400, 'invalid_request'])
  const large = await assay.postForm('/introspect', { token: 'x'.repeat(16_384) }, headers)
  expect([large.status, large.json.error]).toEqual([413, 'invalid_request'])
})

describe('a token asks about itself', () => {
  const self = (token?: string, headers?: Record<string, string>) => assay.get('/introspect', token, headers)

  test('and hears what a service would', async () => {
    const { json } = await self(tokens.access_token)
    expect(json).toEqual((await assay.introspect(tokens.access_token)).json)
  })

  test('and gets an inactive answer if it is invalid, never a 401', async () => {
    for (const token of ['garbage', '!!!', tokens.refresh_token, customer.apiKey, ADMIN_TOKEN]) {
      const { status, text, headers } = await self(token)
      expect([status, text]).toEqual([200, INACTIVE])
      expect(headers.get('cache-control')).toBe('no-store')
    }
  })

  test('and no other credential may use GET: its caller is told to use POST', async () => {
    const query = `/introspect?token=${tokens.access_token}`
    const asked = [
      await self(),
      await self(undefined, { Authorization: SERVER }),
      await assay.get(query, undefined, { Authorization: SERVER }),
      await assay.get(query, customer.apiKey),
      await assay.get(query, tokens.access_token),
      await assay.get(query),
    ]
    for (const { status, json, text } of asked) {
      expect([status, json.error]).toEqual([400, 'invalid_request'])
      expect(json.error_description).toMatch(/^use POST/)
      expect(text).not.toContain(tokens.access_token)
    }
  })
})
