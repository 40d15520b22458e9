import { IncomingMessage } from 'node:http'
import type { Socket } from 'node:net'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type JsonObject, problems } from '../support/openapi.ts'
import { bearer, type Customer, claimsOf, makeWorld, type Replica, type World } from '../support/world.ts'

let world: World
let assay: Replica
let customer: Customer

beforeAll(async () => {
  world = await makeWorld()
  assay = await world.replica()
  customer = await assay.signUp()
})
afterAll(() => world.stop())

/** Returns the answer to a body of /issue, the claims of its token, and what introspection answers to a service. */
async function issued(body: object) {
  const { status, json, headers } = await customer.issue(body)
  expect(status).toBe(200)
  return {
    json,
    headers,
    claims: claimsOf(json.access_token),
    told: (await assay.introspect(json.access_token)).json,
  }
}

async function refusal(body: object | string, headers: Record<string, string> = {}) {
  const { status, json } = await assay.request('/issue', {
    method: 'POST',
    headers: { 'Content-Type': 'application/json', ...bearer(customer.apiKey), ...headers },
    body: typeof body === 'string' ? body : JSON.stringify(body),
  })
  return `${status} ${json.error}`
}

const INVALID = '400 invalid_request'

test('by default a token is about the customer itself, for the issuer, for five minutes, without scope or session', async () => {
  const { json, headers, claims, told } = await issued({})
  expect(json).toEqual({ access_token: expect.any(String), token_type: 'Bearer', expires_in: 300 })
  expect(headers.get('cache-control')).toBe('no-store')
  expect(Object.keys(claims).sort()).toEqual(
    ['aud', 'client_id', 'ep', 'exp', 'iat', 'iss', 'jti', 'sub'].sort(),
  )
  expect(claims).toMatchObject({
    iss: 'http://assay.test',
    aud: 'http://assay.test',
    sub: customer.id,
    client_id: customer.id,
  })
  expect(claims.exp - claims.iat).toBe(300)
  expect(Math.abs(claims.iat - Date.now() / 1000)).toBeLessThan(30)
  expect(told).toMatchObject({ active: true, sub: customer.id, scope: '', scopes: [] })
})

test('a token has the requested subject, in any script', async () => {
  for (const subject of ['user-1', 'a', 'Ada Lovelace', '名前', 'x'.repeat(255), '😀', 'a:b/c?d%20e']) {
    const { claims, told } = await issued({ subject })
    expect([claims.sub, told.sub, claims.client_id]).toEqual([subject, subject, customer.id])
  }
})

test('a subject of one or two dots is refused, because it changes the path of a URL', async () => {
  for (const subject of ['.', '..']) {
    expect(await refusal({ subject })).toBe(INVALID)
    expect(await refusal({ subject, refresh: true })).toBe(INVALID)
  }
  for (const subject of ['...', '.a', '../..']) expect((await issued({ subject })).claims.sub).toBe(subject)
})

test('a token has the requested scopes, once each and in order, and so does the answer', async () => {
  const { json, claims, told } = await issued({ scope: 'write read write' })
  expect([json.scope, claims.scope, told.scope]).toEqual(Array(3).fill('write read'))
  expect(told.scopes).toEqual(['write', 'read'])
})

test('a token has the requested audience, or several', async () => {
  for (const audience of ['https://api.example.com', ['https://a.example', 'urn:b']]) {
    const { claims, told } = await issued({ audience })
    expect([claims.aud, told.aud]).toEqual([audience, audience])
  }
})

test('a repeated audience counts once, also in a session', async () => {
  for (const refresh of [false, true]) {
    const { json, claims, told } = await issued({
      audience: ['urn:b', 'urn:a', 'urn:b'],
      subject: 'u',
      refresh,
    })
    expect([claims.aud, told.aud]).toEqual([
      ['urn:b', 'urn:a'],
      ['urn:b', 'urn:a'],
    ])
    const { headers } = await assay.verify(json.access_token)
    expect(headers.get('x-auth-audience')).toBe('urn:b urn:a')
  }
  expect((await issued({ audience: ['urn:a', 'urn:a'] })).claims.aud).toEqual(['urn:a'])
})

test('a token lives as long as requested, from a second to the longest allowed lifetime', async () => {
  for (const expires_in of [1, 60, 900]) {
    const { json, claims } = await issued({ expires_in })
    expect([json.expires_in, claims.exp - claims.iat]).toEqual([expires_in, expires_in])
  }
})

test('custom claims up to 2 KiB arrive unchanged', async () => {
  const full = { note: 'é'.repeat((2048 - '{"note":""}'.length - 1) / 2), '': null }
  const claims = [
    {},
    { plan: 'pro', seats: [1, { deep: null }], 名: '\u0000"\\' },
    { note: 'é'.repeat(1018) },
  ]
  expect(Buffer.byteLength(JSON.stringify(full))).toBeGreaterThan(2048)
  const nested = { deep: JSON.parse('['.repeat(30) + ']'.repeat(30)) }
  for (const own of [...claims, nested]) {
    const { claims, told } = await issued({ claims: own, subject: 'u' })
    expect([claims.claims, told.claims]).toEqual([own, own])
  }
  expect(await refusal({ claims: full })).toBe(INVALID)
})

test('refresh returns a session and a refresh token, with the session id in both tokens', async () => {
  const { json, claims } = await issued({ subject: 'u', scope: 'read', refresh: true })
  expect(json).toEqual({
    access_token: expect.any(String),
    token_type: 'Bearer',
    expires_in: 300,
    refresh_token: expect.any(String),
    scope: 'read',
    session_id: claims.sid,
  })
  expect(claims.gen).toBe(1)
  const refreshed = claimsOf(json.refresh_token)
  expect(refreshed).toMatchObject({
    aud: 'refresh',
    client_id: customer.id,
    sub: 'u',
    sid: claims.sid,
    gen: 1,
  })
  expect(refreshed).not.toHaveProperty('iss')
  expect(refreshed.exp - refreshed.iat).toBe(90 * 86_400)
})

test('a session keeps the requested values through every refresh', async () => {
  const asked = {
    subject: 'u',
    scope: 'read',
    audience: ['a', 'b'],
    expires_in: 42,
    claims: { plan: 'pro' },
  }
  const { json } = await issued({ ...asked, refresh: true })
  const again = claimsOf((await assay.refresh(json.refresh_token)).json.access_token)
  expect(again).toMatchObject({ sub: 'u', scope: 'read', aud: ['a', 'b'], claims: { plan: 'pro' }, gen: 2 })
  expect(again.exp - again.iat).toBe(42)
})

test('an access token never outlives its session', async () => {
  const brief = await world.replica({ REFRESH_TOKEN_TTL: '60s', ACCESS_TOKEN_TTL: '60s' })
  const { json } = await brief.postJson('/issue', { refresh: true, expires_in: 900 }, bearer(customer.apiKey))
  expect(json.expires_in).toBe(60)
  const session = await brief.introspect(json.refresh_token, `Bearer ${customer.apiKey}`)
  expect(claimsOf(json.access_token).exp).toBe(session.json.exp)
})

test('there is no session when refresh is false', async () => {
  expect((await issued({ refresh: false })).json).not.toHaveProperty('refresh_token')
})

const bad: Record<string, unknown[]> = {
  subject: [
    '',
    'x'.repeat(256),
    null,
    7,
    ['u'],
    'a\nb',
    'a\rb',
    'a\u0000b',
    '\u007f',
    '\u0085',
    '\ud800',
    'a\udc00',
  ],
  scope: [null, ['read'], 7],
  audience: ['', 'a b', 'a\nb', '名', 'x'.repeat(256), [], [''], ['a', 7], Array(11).fill('a'), null, {}],
  expires_in: [0, -1, 1.5, 901, 86_400, '300', null, true, 2 ** 53],
  claims: [null, [], 'x', 7, { note: 'é'.repeat(1019) }, { note: 'x'.repeat(2038) }],
  refresh: ['true', 1, null],
  expiresIn: [60],
}
for (const [member, values] of Object.entries(bad))
  test(`a bad ${member} is refused`, async () => {
    for (const value of values)
      expect(await refusal({ [member]: value }), JSON.stringify(value)).toBe(INVALID)
  })

test('a malformed scope gets the error of RFC 6749 5.2', async () => {
  for (const scope of ['', ' read', 'read ', 'a  b', 'a"b', 'a\\b', 'a\tb', '名', 'x'.repeat(1025)])
    expect(await refusal({ scope }), JSON.stringify(scope)).toBe('400 invalid_scope')
})

test('the OpenAPI document has the limits of scope and audience, and none that is narrower', async () => {
  const declared = (request: JsonObject) => problems(['components', 'schemas', 'IssueRequest'], request)
  const refused = bad.audience!.map(audience => ({ audience }))
  for (const request of [...refused, { scope: 'x'.repeat(1025) }, { scope: 'a  b' }])
    expect(declared(request as JsonObject), JSON.stringify(request)).not.toEqual([])
  const longest = Array.from({ length: 10 }, (_, n) => `${n}`.repeat(25))
  for (const request of [{ scope: 'x'.repeat(1024) }, { audience: longest }, { audience: 'x'.repeat(255) }]) {
    expect(declared(request)).toEqual([])
    await issued(request)
  }
})

test('a lone surrogate or a control character is refused in JSON escapes too', async () => {
  for (const escaped of ['\\ud800', '\\udfff', '\\u000a', '\\u0000', '\\u001b'])
    expect(await refusal(`{"subject":"a${escaped}b"}`)).toBe(INVALID)
})

test('H13 __proto__, constructor and prototype are refused at any depth, escaped or not (CVE-2026-56763)', async () => {
  for (const name of ['__proto__', 'constructor', 'prototype', '\\u005f_proto__'])
    for (const body of [
      `{"${name}":{"polluted":1}}`,
      `{"claims":{"${name}":{"polluted":1}}}`,
      `{"claims":{"a":[{"b":{"${name}":{"polluted":1}}}]}}`,
    ])
      expect(await refusal(body), body).toBe(INVALID)
  expect(({} as { polluted?: number }).polluted).toBeUndefined()
})

test('a claim that a double would change is refused at any depth, with the advice to send a string', async () => {
  for (const number of ['9007199254740993', '12345678901234567890', '1e400', '0.1234567890123456789']) {
    const body = `{"claims":{"a":[{"n":${number}}]}}`
    const headers = { 'Content-Type': 'application/json', ...bearer(customer.apiKey) }
    const { status, json } = await assay.request('/issue', { method: 'POST', headers, body })
    expect([number, status]).toEqual([number, 400])
    expect(json.error_description).toMatch(/send it as a string/)
  }
})

test('any other number is signed as it was sent', async () => {
  const claims = { n: [0, -1, 0.1, 1767605700.125, 9007199254740991, -9007199254740991, 5e-324, 1e300] }
  const { json } = await issued({ claims })
  expect(claimsOf(json.access_token).claims).toEqual(claims)
})

test('a body that is not JSON, not an object, not UTF-8 or nested too deeply is refused', async () => {
  const nested = `{"claims":${'{"a":'.repeat(2700)}1${'}'.repeat(2700)}}`
  const tooDeep = `{"claims":{"a":${'['.repeat(31)}${']'.repeat(31)}}}`
  const arrays = `{"claims":{"a":${'['.repeat(8100)}${']'.repeat(8100)}}}`
  for (const body of ['', '{', 'null', '[]', '"x"', '{"subject":"a"', nested, tooDeep, arrays])
    expect(await refusal(body), body.slice(0, 20)).toBe(INVALID)
  const latin1 = await assay.request('/issue', {
    method: 'POST',
    headers: { 'Content-Type': 'application/json', ...bearer(customer.apiKey) },
    body: Buffer.from('{"subject":"\xe9"}', 'latin1'),
  })
  expect([latin1.status, latin1.json.error]).toEqual([400, 'invalid_request'])
})

test('a body of more than 16 KiB is refused', async () => {
  expect(await refusal({ claims: { a: 'x'.repeat(16_384) } })).toBe('413 invalid_request')
})

test('a body with another media type, or none, is refused', async () => {
  for (const type of ['text/plain', 'application/x-www-form-urlencoded', 'application/jsonp', ''])
    expect(await refusal({}, { 'Content-Type': type }), type).toBe(INVALID)
  for (const type of ['application/json; charset=utf-8', 'Application/JSON'])
    expect(
      (await assay.postJson('/issue', {}, { ...bearer(customer.apiKey), 'Content-Type': type })).status,
    ).toBe(200)
})

test('H40 a token with more than 3 KiB of identity headers is refused when it is issued (CVE-2026-50630)', async () => {
  const over = [
    { subject: '名'.repeat(255), claims: { a: 'x'.repeat(600) } },
    { audience: Array.from({ length: 10 }, (_, i) => i + 'x'.repeat(254)), scope: 's'.repeat(600) },
    { subject: 'x'.repeat(255), claims: { a: 'x'.repeat(2038) } },
  ]
  for (const body of over) expect(await refusal(body)).toBe(INVALID)
  const { json } = await issued({ subject: 's', claims: { a: 'x'.repeat(2040) } })
  const { headers } = await assay.verify(json.access_token)
  const size = [...headers]
    .filter(([name]) => name.startsWith('x-auth-'))
    .reduce((sum, [name, value]) => sum + `${name}: ${value}\r\n`.length, 0)
  expect(size).toBeLessThanOrEqual(3072)
  expect(size).toBeGreaterThan(2800)
})

test('no answer repeats the input', async () => {
  for (const body of [
    { canary7: 1 },
    { subject: 'canary7\n' },
    { claims: 'canary7' },
    { scope: 'canary7"' },
  ]) {
    const { status, text } = await customer.issue(body)
    expect(status).toBe(400)
    expect(text).not.toContain('canary7')
  }
})

test('the server does not wait for a client that left before its body was requested', async () => {
  const incoming = new IncomingMessage({ remoteAddress: '10.0.0.1', destroyed: true } as Socket)
  incoming.url = '/issue'
  incoming.destroy()
  await new Promise(resolve => incoming.once('close', resolve))
  const headers = { ...bearer(customer.apiKey), 'Content-Type': 'application/json' }
  const { status } = await assay.app.request('/issue', { method: 'POST', headers }, { incoming })
  expect(status).toBe(400)
})
