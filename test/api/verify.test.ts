import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { bearer, type Customer, claimsOf, makeWorld, type Replica, type World } from '../support/world.ts'

let world: World
let assay: Replica
let customer: Customer
let token: string

beforeAll(async () => {
  world = await makeWorld()
  assay = await world.replica()
  customer = await assay.signUp()
  token = (await customer.session()).access_token
})
afterAll(() => world.stop())

const METHODS = ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS']
const PATHS = ['/verify', '/verify/', '/verify/orders/42', '/verify//a/./b%2fc%00', '/verify/x?page=2']
const IDENTITY = 'Customer Subject Scope Audience Session Token-Id Expires Claims'
  .split(' ')
  .map(name => `x-auth-${name.toLowerCase()}`)

const identityOf = (headers: Headers) => IDENTITY.map(name => headers.get(name))

describe.each(METHODS)('with the method %s', method => {
  test.each(PATHS)('%s accepts a valid token and refuses the rest', async path => {
    const ask = (authorization?: string) =>
      assay.request(path, { method, headers: authorization ? { Authorization: authorization } : {} })
    const allowed = await ask(`Bearer ${token}`)
    expect(allowed.status).toBe(200)
    for (const answer of [allowed, await ask(), await ask('Bearer garbage')]) {
      expect(answer.headers.get('content-length')).toBe('0')
      expect(answer.text).toBe('')
      expect(answer.headers.get('content-type')).toBeNull()
    }
    expect((await ask()).status).toBe(401)
    expect((await ask('Bearer garbage')).status).toBe(401)
  })
})

test('a body is never read, whether it is endless or broken', async () => {
  for (const [authorization, status] of [
    [`Bearer ${token}`, 200],
    ['Bearer garbage', 401],
  ] as const) {
    for (const endless of [true, false]) {
      let read = 0
      const body = new ReadableStream(
        {
          pull() {
            read++
            if (!endless) throw new Error('the body was read')
            return new Promise<void>(() => {})
          },
        },
        { highWaterMark: 0 },
      )
      const headers = { Authorization: authorization }
      const init = { method: 'POST', headers, body, duplex: 'half' as const }
      expect((await assay.request('/verify/upload', init)).status).toBe(status)
      expect(read).toBe(0)
    }
  }
})

test('a token in the body or in the query is ignored', async () => {
  const form = { access_token: token, token }
  expect((await assay.postForm('/verify', form)).status).toBe(401)
  expect((await assay.postJson('/verify', form)).status).toBe(401)
  expect((await assay.get(`/verify/x?access_token=${token}`)).status).toBe(401)
})

test('every identity header is set from the token', async () => {
  const { access_token: own, session_id } = await customer.session({
    audience: ['https://api.example.com', 'other'],
    claims: { plan: 'pro', seats: [1, 2] },
  })
  const { headers } = await assay.verify(own)
  const { jti, exp } = claimsOf(own)
  expect(identityOf(headers).slice(0, 7)).toEqual([
    customer.id,
    'user-1',
    'read write',
    'https://api.example.com other',
    session_id,
    jti,
    String(exp),
  ])
  const sent = Buffer.from(headers.get('x-auth-claims')!, 'base64url').toString()
  expect(JSON.parse(sent)).toEqual({ plan: 'pro', seats: [1, 2] })
})

test('a missing claim is an empty header, not a missing one', async () => {
  const { json } = await customer.issue()
  const { status, headers } = await assay.verify(json.access_token)
  expect(status).toBe(200)
  expect(headers.get('x-auth-subject')).toBe(customer.id)
  for (const name of ['scope', 'session', 'claims']) expect(headers.get(`x-auth-${name}`)).toBe('')
  expect(identityOf(headers)).not.toContain(null)
})

test('a refusal has no identity headers', async () => {
  for (const path of ['/verify?scope=admin', '/verify?nonsense=1']) {
    const { status, headers } = await assay.verify(token, path)
    expect(status).toBe(403)
    expect(identityOf(headers)).toEqual(IDENTITY.map(() => null))
  }
})

test.each([
  ['名', '%E5%90%8D'],
  ['Zoë Müller', 'Zo%C3%AB%20M%C3%BCller'],
  ['50% off', '50%25%20off'],
  ['100%41', '100%2541'],
  ['%0d%0aX-Auth-Scope: admin', '%250d%250aX-Auth-Scope:%20admin'],
  ['a,b;c="d"', 'a,b;c="d"'],
  ['🔑', '%F0%9F%94%91'],
  ['\u00a0\u2028', '%C2%A0%E2%80%A8'],
])('the subject %j arrives at the backend as %s', async (subject, header) => {
  const { access_token: own } = await customer.session({ subject })
  const { headers } = await assay.verify(own)
  expect(headers.get('x-auth-subject')).toBe(header)
  expect(decodeURIComponent(header)).toBe(subject)
})

test('custom claims arrive complete, whatever characters they contain', async () => {
  const claims = { name: '名\r\nX-Auth-Scope: admin\u0000', nested: { emoji: '🔑', list: [null, 1.5, true] } }
  const { access_token: own } = await customer.session({ claims })
  const header = (await assay.verify(own)).headers.get('x-auth-claims')!
  expect(header).toMatch(/^[\w-]+$/)
  expect(JSON.parse(Buffer.from(header, 'base64url').toString())).toEqual(claims)
})

test('identity headers never exceed 3 KiB: a token with more is refused when it is issued', async () => {
  const long = { subject: '名'.repeat(255), claims: { a: 'x'.repeat(1000) } }
  expect((await customer.issue(long)).status).toBe(400)
  const most = await customer.session({ subject: '名'.repeat(240), claims: { a: 'x'.repeat(200) } })
  const { headers } = await assay.verify(most.access_token)
  const bytes = IDENTITY.reduce((sum, name) => sum + name.length + headers.get(name)!.length + 4, 0)
  expect(bytes).toBeGreaterThan(2_500)
  expect(bytes).toBeLessThanOrEqual(3 * 1024)
})

test('the challenge has an error only if a token was sent', async () => {
  const challenge = async (headers: Record<string, string>, path = '/verify') =>
    (await assay.request(path, { headers })).headers.get('www-authenticate')
  const invalid = 'Bearer realm="assay", error="invalid_token"'
  expect(await challenge({})).toBe('Bearer realm="assay"')
  expect(await challenge({ Authorization: 'Basic dXNlcjpwYXNz' })).toBe('Bearer realm="assay"')
  expect(await challenge({ Authorization: 'Bearer garbage' })).toContain(invalid)
  expect(await challenge({ Authorization: `Bearer ${token.slice(0, -1)}` })).toContain(invalid)
  const { apiKey } = await assay.signUp()
  expect(await challenge({ Authorization: `Bearer ${apiKey}` })).toContain('this is not an access token')
  const bearer = { Authorization: `Bearer ${token}` }
  expect(await challenge(bearer)).toBeNull()
  expect(await challenge(bearer, '/verify?scope=read+admin')).toBe(
    'Bearer realm="assay", error="insufficient_scope", scope="read admin"',
  )
  expect(await challenge(bearer, '/verify?aud=other')).toBe(
    'Bearer realm="assay", error="insufficient_scope"',
  )
})

test('a token with invalid characters is an invalid one, not a missing one', async () => {
  for (const odd of ['!!!', 'a b', '{}', `${token},${token}`, `"${token}"`]) {
    const { status, headers } = await assay.get('/verify', odd)
    expect(status).toBe(401)
    expect(headers.get('www-authenticate')).toContain('error="invalid_token"')
  }
})

test('the scheme Bearer is case-insensitive', async () => {
  for (const scheme of ['bearer', 'BEARER', 'Bearer '])
    expect((await assay.get('/verify', undefined, { Authorization: `${scheme} ${token}` })).status).toBe(200)
  for (const other of [token, `Basic ${token}`, `Token ${token}`, `BearerX ${token}`, `Bearer${token}`])
    expect((await assay.get('/verify', undefined, { Authorization: other })).status).toBe(401)
})

describe('with a cookie for the token', () => {
  let withCookie: Replica
  const ask = (cookie: string, authorization?: string) =>
    withCookie.request('/verify', {
      headers: { Cookie: cookie, ...(authorization === undefined ? {} : { Authorization: authorization }) },
    })

  beforeAll(async () => {
    withCookie = await world.replica({ TOKEN_COOKIE: 'session' })
  })

  test('the token is read from it, at any position among the cookies', async () => {
    for (const cookie of [`session=${token}`, `a=b; session=${token}; c=d`, `sessions=x;session=${token}`])
      expect((await ask(cookie)).status).toBe(200)
  })

  test('a cookie with another name is ignored', async () => {
    for (const name of ['Session', 'xsession', 'session2', 'token', '__Host-session'])
      expect((await ask(`${name}=${token}`)).status).toBe(401)
    expect((await ask('session=')).headers.get('www-authenticate')).toBe('Bearer realm="assay"')
    expect((await ask('session=garbage')).headers.get('www-authenticate')).toContain('invalid_token')
  })

  const askAll = (...tokens: string[]) => ask(tokens.map(each => `session=${each}`).join('; '))

  test('two valid ones of one subject are accepted, and the first counts', async () => {
    const [one, two] = [await customer.session(), await customer.session()]
    for (const [first, second] of [
      [one, two],
      [two, one],
    ] as const) {
      const { status, headers } = await askAll(first.access_token, 'garbage', second.access_token)
      expect([status, headers.get('x-auth-session')]).toEqual([200, first.session_id])
    }
    expect((await askAll(one.access_token, one.access_token)).status).toBe(200)
  })

  test('two valid ones of different subjects are refused, until one of them is revoked', async () => {
    const ann = await customer.session({ subject: 'ann' })
    // The same subject of another customer.
    const others = [
      await customer.session({ subject: 'bob' }),
      await (await assay.signUp()).session({ subject: 'ann' }),
    ]
    for (const other of others)
      for (const tokens of [
        [ann.access_token, other.access_token],
        [other.access_token, ann.access_token],
      ]) {
        const refused = await askAll(...tokens)
        expect([refused.status, refused.headers.get('x-auth-subject')]).toEqual([401, null])
        expect(refused.headers.get('www-authenticate')).toContain('invalid_token')
      }
    await withCookie.postForm('/revoke', { token: others[0]!.access_token }, bearer(customer.apiKey))
    expect((await askAll(others[0]!.access_token, ann.access_token)).headers.get('x-auth-subject')).toBe(
      'ann',
    )
  })

  test('valid ones are compared before their customers are cached too, and with X-Consistency', async () => {
    const [one, two] = [(await customer.issue()).json, (await (await assay.signUp()).issue()).json]
    const both = `session=${one.access_token}; session=${two.access_token}`
    const fresh = await world.replica({ TOKEN_COOKIE: 'session' })
    const headers = { Cookie: both }
    expect((await fresh.request('/verify', { headers })).status).toBe(401)
    expect((await ask(both)).status).toBe(401)
    const strict = { Cookie: `session=x; session=${one.access_token}`, 'X-Consistency': 'strict' }
    expect((await fresh.request('/verify', { headers: strict })).status).toBe(200)
    expect((await fresh.request('/verify', { headers: { ...strict, Cookie: both } })).status).toBe(401)
  })

  test('at most four are read, and empty ones are ignored', async () => {
    expect((await askAll('a', 'b', 'c', token)).status).toBe(200)
    expect((await askAll('a', 'b', 'c', 'd', token)).status).toBe(401)
    expect((await askAll('', '', '', '', '', token)).status).toBe(200)
    expect((await askAll('', '')).headers.get('www-authenticate')).toBe('Bearer realm="assay"')
  })

  test.each(['garbage', 'a.b.c', '!!!', 'a b'])(
    'a Bearer header takes precedence, even with the token %s',
    async bad => {
      expect((await ask(`session=${token}`, `Bearer ${bad}`)).status).toBe(401)
      expect((await ask(`session=${bad}`, `Bearer ${token}`)).status).toBe(200)
    },
  )

  test('a header with another scheme is ignored', async () => {
    expect((await ask(`session=${token}`, 'Basic dXNlcjpwYXNz')).status).toBe(200)
  })

  test('cookies are ignored where the setting names none', async () => {
    expect((await assay.get('/verify', undefined, { Cookie: `session=${token}` })).status).toBe(401)
  })
})

test("a caller's request id is returned if it is harmless, and replaced otherwise", async () => {
  const id = async (theirs: string, bearer?: string) =>
    (await assay.get('/verify', bearer, { 'X-Request-Id': theirs })).headers.get('x-request-id')
  for (const theirs of ['req-1', 'a'.repeat(128), '4bf92f35:77b3_4da6.x'])
    for (const bearer of [token, 'garbage', undefined]) expect(await id(theirs, bearer)).toBe(theirs)
  for (const theirs of ['', 'a b', 'a'.repeat(129), '"><script>', 'é', 'a,b'])
    expect(await id(theirs, token)).toMatch(/^[0-9a-f-]{36}$/)
})

test('refresh tokens, API keys and the like are not access tokens', async () => {
  const { refresh_token } = await customer.session()
  for (const other of [refresh_token, customer.refreshToken, customer.apiKey])
    expect((await assay.verify(other)).status).toBe(401)
  expect((await assay.verify(customer.accessToken)).status).toBe(200)
})

test('a token expires at its exp, to the second', async () => {
  const { json } = await customer.issue({ expires_in: 60 })
  expect((await assay.verify(json.access_token)).status).toBe(200)
  await world.advance(61_000)
  expect((await assay.verify(json.access_token)).status).toBe(401)
})
