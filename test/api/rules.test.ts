import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { bearer, type Customer, makeWorld, type Replica, type World } from '../support/world.ts'

let world: World
let assay: Replica
let customer: Customer
let token: string

beforeAll(async () => {
  world = await makeWorld()
  assay = await world.replica()
  customer = await assay.signUp()
  token = (await customer.session({ audience: ['api', 'https://api.example.com/v1?x=1'] })).access_token
})
afterAll(() => world.stop())

/** The statuses with the rule in the query of /verify and /verify/, in the header there, and in the header on a sub-path. */
async function asked(rules: string): Promise<number[]> {
  const required = { ...bearer(token), 'X-Assay-Require': rules }
  const answers = [
    await assay.request(`/verify?${rules}`, { headers: bearer(token) }),
    await assay.request(`/verify/?${rules}`, { headers: bearer(token) }),
    await assay.request('/verify', { headers: required }),
    await assay.request('/verify/orders/42', { headers: required }),
  ]
  return answers.map(({ status }) => status)
}

const ALLOWED = [200, 200, 200, 200]
const DENIED = [403, 403, 403, 403]

test.each([
  'scope=read',
  'scope=read+write',
  'scope=write%20read',
  'scope_any=admin+read',
  'aud=api',
  `aud=${encodeURIComponent('https://api.example.com/v1?x=1')}`,
  'scope=read&aud=api&scope_any=write',
])('a token that satisfies %s is accepted', async rules => {
  expect(await asked(rules)).toEqual(ALLOWED)
})

test.each([
  'scope=admin',
  'scope=read+admin',
  'scope=Read',
  'scope=rea',
  'scope=read,write',
  'scope_any=admin+root',
  'aud=other',
  'aud=API',
  'aud=api+api',
  'aud=http://assay.test',
  'customer=aaaaaaaaaaaaaaaa',
  'scope=read&aud=other',
  'scope_any=read&scope=admin',
])('a token that does not satisfy %s is denied', async rules => {
  expect(await asked(rules)).toEqual(DENIED)
})

test('only tokens of the requested customer pass', async () => {
  const other = await assay.signUp()
  expect(await asked(`customer=${customer.id}`)).toEqual(ALLOWED)
  expect(await asked(`customer=${other.id}`)).toEqual(DENIED)
  expect(await asked(`customer=${customer.id}&scope=read`)).toEqual(ALLOWED)
  expect(await asked(`customer=${customer.id}&scope=admin`)).toEqual(DENIED)
})

test('a token without scopes has none of the required ones', async () => {
  const { json } = await customer.issue()
  for (const rule of ['scope=read', 'scope_any=read'])
    expect((await assay.verify(json.access_token, `/verify?${rule}`)).status).toBe(403)
})

const WRONG = {
  unknown: ['scpoe=read', 'Scope=read', 'scopes=read', 'scope[]=read', 'x', '__proto__=read', '=read'],
  repeated: [
    'scope=read&scope=read',
    'aud=api&aud=api',
    'scope=read&sc%6fpe=write',
    'scope_any=a&scope_any=b',
  ],
  empty: ['scope=', 'scope', 'scope_any=', 'aud=', 'customer=', 'scope=+', 'scope=read&aud='],
  malformed: ['scope=read++write', 'scope=+read', 'scope=%22', 'scope=re%0aad', 'scope=%00', 'scope=%E9'],
}

describe.each(Object.entries(WRONG))('H56 a rule that is %s denies, and is logged', (_, rules) => {
  test.each(rules)('%s', async rule => {
    const before = assay.lines.length
    expect(await asked(rule)).toEqual(DENIED)
    const warnings = assay.lines.slice(before).filter(line => JSON.parse(line).level === 40)
    expect(warnings).toHaveLength(4)
    for (const line of warnings)
      expect(JSON.parse(line)).toMatchObject({ msg: expect.stringContaining('a rule is unknown') })
  })
})

test('H56 rules of more than 4,096 characters deny, and are not repeated in the answer', async () => {
  const denied = await assay.verify(token, `/verify?scope_any=read+${'x+'.repeat(2_048)}x`)
  expect(denied.status).toBe(403)
  expect(denied.headers.get('www-authenticate')!.length).toBeLessThan(100)
  const longest = `scope_any=read+${'x'.repeat(4_096 - 'scope_any=read+'.length)}`
  expect((await assay.verify(token, `/verify?${longest}`)).status).toBe(200)
  expect((await assay.verify(token, `/verify?${longest}x`)).status).toBe(403)
})

test('H56 a wrong rule denies every request: without a token, with a bad one, and repeated', async () => {
  for (const headers of [{}, bearer('garbage'), bearer(token), bearer(token)])
    expect((await assay.request('/verify?scpoe=read', { headers })).status).toBe(403)
})

test('H56 a rule in the query and another in the header must both hold', async () => {
  const ask = async (query: string, header: string) =>
    (await assay.get(`/verify?${query}`, token, { 'X-Assay-Require': header })).status
  expect(await ask('scope=read', 'aud=api')).toBe(200)
  expect(await ask('scope=admin', 'aud=api')).toBe(403)
  expect(await ask('scope=read', 'aud=other')).toBe(403)
  // The same rule in both places is a repeated rule, whichever is stricter.
  expect(await ask('scope=read', 'scope=read')).toBe(403)
  expect(await ask('scope=read', 'scope=admin')).toBe(403)
})

test("H56 on a sub-path the client's own query is ignored", async () => {
  const queries = ['scope=admin', 'scope=', 'scpoe=x', 'scope=read&scope=read', 'customer=x', 'page=2', '&&=']
  for (const query of queries)
    for (const path of ['/verify/path/', '/verify/orders', '/verify/verify', '/verify/%3f', '/verify/%20'])
      expect((await assay.verify(token, `${path}?${query}`)).status).toBe(200)
})

test("H56 on a sub-path the client's own query does not loosen the proxy's rule", async () => {
  for (const query of ['scope=read', 'scope_any=read', '', 'X-Assay-Require=scope=read']) {
    const headers = { 'X-Assay-Require': 'scope=admin' }
    expect((await assay.get(`/verify/orders?${query}`, token, headers)).status).toBe(403)
  }
})

test('H56 an extra slash in the proxy’s address drops no rule', async () => {
  for (const path of ['/verify/', '/verify//', '/verify///']) {
    expect((await assay.verify(token, `${path}?scope=nope`)).status).toBe(403)
    expect((await assay.verify(token, `${path}?scpoe=read`)).status).toBe(403)
    expect((await assay.verify(token, `${path}?scope=read`)).status).toBe(200)
    const both = await assay.get(`${path}?scope=read`, token, { 'X-Assay-Require': 'aud=other' })
    expect(both.status).toBe(403)
  }
})

test('H56 a repeated header is one more rule or a malformed one, never one fewer', async () => {
  for (const [one, two, status] of [
    ['scope=admin', 'scope=read', 403],
    ['scope=read', 'scope=admin', 403],
    ['scope=read', 'aud=api', 403],
  ] as const) {
    const headers = new Headers(bearer(token))
    headers.append('X-Assay-Require', one)
    headers.append('X-Assay-Require', two)
    expect((await assay.request('/verify/x', { headers })).status).toBe(status)
  }
})

test('without a rule any valid token passes', async () => {
  for (const path of ['/verify', '/verify?', '/verify/', '/verify/?', '/verify//', '/verify/x'])
    expect((await assay.verify(token, path)).status).toBe(200)
  expect((await assay.get('/verify/x', token, { 'X-Assay-Require': '' })).status).toBe(200)
  expect((await assay.get('/verify/x', 'garbage')).status).toBe(401)
})

test('a bad token is 401 and not 403, whatever rule it would fail', async () => {
  for (const path of ['/verify?scope=admin', '/verify?customer=x']) {
    expect((await assay.verify('garbage', path)).status).toBe(401)
    expect((await assay.get(path)).status).toBe(401)
  }
})
