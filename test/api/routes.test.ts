import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { RIGHT_OF_ROUTE, RIGHTS } from '../../server/clients/rights.ts'
import { documentedRoutes, METHODS } from '../support/openapi.ts'
import {
  ADMIN_TOKEN,
  type Answer,
  basic,
  bearer,
  type Customer,
  makeWorld,
  READER,
  type Replica,
  SERVICE,
  type World,
} from '../support/world.ts'

/** Every route of the router, and the credentials that it accepts. A route that is not declared here fails. */

let world: World
let assay: Replica
let shared: Show

beforeAll(async () => {
  world = await makeWorld()
  assay = await world.replica()
  services = await createServices()
  shared = await credentials()
})
afterAll(() => world.stop())

/** A service for each right, which has no other one. */
const ONE_RIGHT = RIGHTS.map(right => `service ${right}` as const)

const CREDENTIALS = [
  'nothing',
  'garbage',
  'account token',
  'issued token',
  'client token',
  'refresh token',
  'API key',
  'narrow API key',
  'configured service',
  ...ONE_RIGHT,
  'operator token',
  'reading operator',
] as const
type Credential = (typeof CREDENTIALS)[number]

const EVERYONE = [...CREDENTIALS]
const ACCESS: Credential[] = ['account token', 'issued token', 'client token']
const ACCOUNT: Credential[] = ['account token']
const API_KEYS: Credential[] = ['API key', 'narrow API key']
const OPERATORS: Credential[] = ['operator token', 'reading operator']
const CHANGERS: Credential[] = ['operator token']
const INTROSPECTORS: Credential[] = ['service introspect', 'configured service']

interface Shown {
  id: string
  secret: string
  customer: Customer
  /** The credential itself if it can be revoked with itself (a refresh token); otherwise an unneeded access token. */
  revocable: string
  /** The credential itself, or for a service one of the customer's session. */
  refreshToken: string
}

interface Rule {
  may: readonly Credential[]
  /** A valid request except for the credential; `shown` where the credential is part of the request. */
  body?: (shown: Shown) => object | URLSearchParams
  /** The answers that count as accepted, for routes that answer everyone. */
  passes?: (answer: Answer) => boolean
  /** It ends what it is shown, so it uses its own customer. */
  ends?: true
}

const form = (members: Record<string, string>) => new URLSearchParams(members)
const newAccount = () => ({ email: `${crypto.randomUUID()}@example.com`, password: 'correct horse battery' })

const VERIFY_PATHS = ['/verify', '/verify/', '/verify/:path{.+}']
const VERIFY = Object.fromEntries(VERIFY_PATHS.map(path => [`ALL ${path}`, { may: ACCESS }]))

const RULES: Record<string, Rule> = {
  ...VERIFY,
  'POST /api/auth/signup': { may: EVERYONE, body: newAccount },
  'POST /api/auth/login': {
    may: EVERYONE,
    body: ({ customer: { email, password } }) => ({ email, password }),
  },
  'GET /api/auth/me': { may: ACCOUNT },
  'POST /api/auth/logout': { may: ACCOUNT, ends: true },
  'POST /api/auth/password': {
    may: ACCOUNT,
    ends: true,
    body: ({ customer: { password } }) => ({ password, new_password: password }),
  },
  'POST /api/auth/refresh': {
    may: ['refresh token', 'service refresh'],
    body: ({ refreshToken }) => ({ refresh_token: refreshToken }),
  },
  // A one-time token needs no credential beside it. A made-up one is refused with any credential.
  'POST /api/auth/reset': {
    may: EVERYONE,
    body: ({ customer: { password } }) => ({ token: 'none', password }),
    passes: ({ json }) => json.error === 'invalid_grant',
  },
  'POST /api/auth/verify-email': {
    may: EVERYONE,
    body: () => ({ token: 'none' }),
    passes: ({ json }) => json.error === 'invalid_grant',
  },
  'POST /api/auth/email': {
    may: ACCOUNT,
    body: ({ customer: { password } }) => ({ email: newAccount().email, password }),
  },
  'GET /api/keys': { may: ACCOUNT },
  'POST /api/keys': { may: ACCOUNT, body: () => ({ name: 'new' }) },
  'DELETE /api/keys/:id': { may: ACCOUNT },
  'GET /api/sessions': { may: ['account token', 'API key'] },
  'DELETE /api/sessions/:id': { may: ['account token', 'API key'] },
  'DELETE /api/sessions': { may: ACCOUNT, ends: true },
  'POST /api/subjects/revoke': { may: ['account token', 'API key'], body: () => ({ subject: 'user-1' }) },
  'POST /api/subjects/export': { may: ACCOUNT, body: () => ({ subject: 'user-1' }) },
  'GET /api/secrets': { may: ACCOUNT },
  'POST /api/secrets/rotate': { may: ACCOUNT, body: () => ({ dry_run: true }) },
  // There is no such version: an authorized caller gets 404.
  'POST /api/secrets/retire': { may: ACCOUNT, body: () => ({ use: 'access', version: 99 }) },
  'GET /api/audit': { may: ACCOUNT },
  'POST /issue': {
    may: [...API_KEYS, 'service issue'],
    body: ({ customer }) => ({ customer: customer.id }),
  },
  'POST /token': {
    may: [...API_KEYS, 'service issue'],
    body: ({ customer }) => form({ grant_type: 'client_credentials', customer: customer.id }),
  },
  'POST /refresh': {
    may: ['refresh token', 'service refresh'],
    body: ({ refreshToken }) => form({ refresh_token: refreshToken }),
  },
  'POST /introspect': { may: [...API_KEYS, ...INTROSPECTORS], body: () => form({ token: 'x' }) },
  'GET /introspect': { may: ACCESS, passes: ({ json }) => json.active },
  'POST /introspect/batch': { may: [...API_KEYS, ...INTROSPECTORS], body: () => ({ tokens: [] }) },
  'POST /revoke': {
    may: [...API_KEYS, 'refresh token', 'service revoke'],
    body: ({ revocable }) => form({ token: revocable }),
  },
  'GET /.well-known/oauth-authorization-server': { may: EVERYONE },
  'GET /.well-known/oauth-authorization-server/:path{.+}': { may: EVERYONE },
  'GET /.well-known/openid-configuration': { may: EVERYONE },
  'GET /.well-known/openid-configuration/:path{.+}': { may: EVERYONE },
  'GET /.well-known/jwks.json': { may: EVERYONE },
  'GET /customers/:issuer/jwks.json': { may: EVERYONE },
  'GET /customers/:issuer/.well-known/oauth-authorization-server': { may: EVERYONE },
  'GET /customers/:issuer/.well-known/openid-configuration': { may: EVERYONE },
  'GET /healthz': { may: EVERYONE },
  'GET /readyz': { may: EVERYONE },
  'GET /metrics': { may: OPERATORS },
  'POST /introspect/explain': { may: INTROSPECTORS, body: () => form({ token: 'x' }) },
  'GET /admin/customers': { may: OPERATORS },
  'POST /admin/customers': {
    may: [...CHANGERS, 'service create'],
    body: () => ({ email: newAccount().email }),
  },
  'GET /admin/customers/:customer': { may: OPERATORS },
  'PATCH /admin/customers/:customer': { may: CHANGERS, body: () => ({ name: 'new' }) },
  'DELETE /admin/customers/:customer': { may: CHANGERS, ends: true },
  'POST /admin/customers/:customer/disable': { may: [...CHANGERS, 'service disable'], ends: true },
  'POST /admin/customers/:customer/enable': { may: [...CHANGERS, 'service disable'] },
  'PUT /admin/customers/:customer/password': {
    may: CHANGERS,
    ends: true,
    body: ({ customer: { password } }) => ({ password }),
  },
  'POST /admin/customers/:customer/password-reset': { may: [...CHANGERS, 'service reset'], body: () => ({}) },
  'POST /admin/customers/:customer/email-verification': {
    may: [...CHANGERS, 'service reset'],
    body: () => ({}),
  },
  'POST /admin/customers/:customer/email-change': {
    may: [...CHANGERS, 'service reset'],
    body: () => ({ email: newAccount().email }),
  },
  'PUT /admin/customers/:customer/policy': { may: CHANGERS, body: () => ({ key_max_age: 3_600 }) },
  'POST /admin/customers/:customer/revoke': { may: [...CHANGERS, 'service sessions'], ends: true },
  'GET /admin/customers/:customer/keys': { may: OPERATORS },
  'POST /admin/customers/:customer/keys': { may: CHANGERS, body: () => ({ name: 'new' }) },
  'DELETE /admin/customers/:customer/keys/:id': { may: CHANGERS },
  'GET /admin/customers/:customer/secrets': { may: [...OPERATORS, 'service rotate'] },
  'POST /admin/customers/:customer/secrets/rotate': {
    may: [...CHANGERS, 'service rotate'],
    body: () => ({ dry_run: true }),
  },
  'POST /admin/customers/:customer/secrets/retire': {
    may: [...CHANGERS, 'service rotate'],
    body: () => ({ use: 'access', version: 99 }),
  },
  'GET /admin/customers/:customer/sessions': { may: [...OPERATORS, 'service sessions'] },
  'DELETE /admin/customers/:customer/sessions/:id': { may: [...CHANGERS, 'service sessions'] },
  'POST /admin/customers/:customer/subjects/revoke': {
    may: [...CHANGERS, 'service sessions'],
    body: () => ({ subject: 'user-1' }),
  },
  'POST /admin/customers/:customer/subjects/export': {
    may: CHANGERS,
    body: () => ({ subject: 'user-1' }),
  },
  'GET /admin/customers/:customer/audit': { may: OPERATORS },
  'GET /admin/audit': { may: OPERATORS },
  'GET /admin/audit/export': { may: OPERATORS },
  'GET /admin/replicas': { may: OPERATORS },
  'GET /admin/clock': { may: OPERATORS },
  'POST /admin/clock/confirm': { may: CHANGERS, body: () => ({ held_until: '2026-01-31T12:00:00.000Z' }) },
  'GET /admin/services': { may: OPERATORS },
  'POST /admin/services': {
    may: CHANGERS,
    body: () => ({ name: `s-${randomUUID()}`, may: ['introspect'] }),
  },
  'PUT /admin/services/:id': { may: CHANGERS, body: () => ({ may: ['introspect'] }) },
  'POST /admin/services/:id/rotate': { may: CHANGERS, body: () => ({}) },
  'DELETE /admin/services/:id': { may: CHANGERS },
  'POST /admin/revoke': { may: CHANGERS, body: () => ({ token: 'x' }) },
  'POST /admin/explain': { may: OPERATORS, body: () => ({ token: 'x' }) },
  'GET /openapi.yaml': { may: EVERYONE },
  'GET /docs': { may: EVERYONE },
  'GET /docs/:asset': { may: EVERYONE },
}

/** Hono's own table without middleware: of the routes registered for all methods only /verify answers. */
const routes = () => [
  ...new Set(
    assay.app.routes
      .filter(({ method, path }) => method !== 'ALL' || VERIFY_PATHS.includes(path))
      .map(({ method, path }) => `${method} ${path}`),
  ),
]

/** As in openapi.yaml, with /verify once per method; /verify with extra slashes is not a path of its own. */
const documented = (route: string): string[] => {
  const [method = '', path = ''] = route.split(' ')
  if (path === '/verify/') return []
  const template = path.replace(/:(\w+)(\{.+\})?/g, '{$1}')
  return (method === 'ALL' ? METHODS.map(each => each.toUpperCase()) : [method]).map(
    each => `${each} ${template}`,
  )
}

test('H50 every route of the router is declared here, and every declared route exists (CVE-2025-61928)', () => {
  expect(routes().sort()).toEqual(Object.keys(RULES).sort())
})

test('every route of the router is in openapi.yaml, and vice versa', () => {
  expect(routes().flatMap(documented).sort()).toEqual(documentedRoutes().sort())
})

test('the right that a service needs for a route is the one that opens it here, and opens no other', () => {
  const opened = ({ may }: Rule) =>
    may === EVERYONE ? [] : may.filter(kind => ONE_RIGHT.includes(kind as never))
  const needed = new Map<string, string[]>()
  for (const [row, right] of Object.entries(RIGHT_OF_ROUTE)) {
    const route = row.split(' ').slice(0, 2).join(' ')
    needed.set(route, [...(needed.get(route) ?? []), `service ${right}`])
  }
  // The table above asks /token for client_credentials; the other grant has a test of its own.
  needed.set('POST /token', ['service issue'])
  for (const [route, rule] of Object.entries(RULES))
    expect([route, opened(rule)]).toEqual([route, needed.get(route) ?? []])
  expect([...needed.keys()].filter(route => RULES[route] === undefined)).toEqual([])
})

test.each(ONE_RIGHT)('%s: the refresh grant of /token is open to the right refresh alone', async kind => {
  const { id, secret, refreshToken } = await shared(kind)
  const grant = { grant_type: 'refresh_token', refresh_token: refreshToken }
  for (const authorization of [bearer(secret), { Authorization: basic(id, secret) }]) {
    const { status, json } = await assay.postForm('/token', grant, authorization)
    const [passed, refused] = [
      { status: 200, error: undefined },
      { status: 400, error: 'unauthorized_client' },
    ]
    expect({ status, error: json.error }).toEqual(kind === 'service refresh' ? passed : refused)
  }
})

type Show = (kind: Credential) => Promise<Shown>

interface Service {
  id: string
  credential: string
}

let services: Map<string, Service>

async function createServices() {
  const made = RIGHTS.map(async right => {
    const body = { name: `only-${right}`, may: [right] }
    const { json } = await assay.postJson('/admin/services', body, bearer(ADMIN_TOKEN))
    return [`service ${right}`, json as Service] as const
  })
  return new Map(await Promise.all(made))
}

/** All the credentials of a new customer; the tokens of its user are new each time. */
async function credentials(): Promise<Show> {
  const customer = await assay.signUp()
  const narrow = await assay.postJson('/api/keys', { scopes: ['read'] }, bearer(customer.accessToken))
  const token = { grant_type: 'client_credentials' }
  const client = (await assay.postForm('/token', token, bearer(customer.apiKey))).json.access_token
  return async function show(kind) {
    const issued = await customer.session()
    const secrets: Record<string, string> = {
      nothing: '',
      garbage: 'garbage',
      'account token': customer.accessToken,
      'issued token': issued.access_token,
      'client token': client,
      'refresh token': issued.refresh_token,
      'API key': customer.apiKey,
      'narrow API key': narrow.json.api_key,
      'configured service': SERVICE.secret,
      'operator token': ADMIN_TOKEN,
      'reading operator': READER,
    }
    const service = services.get(kind)
    const id = service?.id ?? (kind === 'configured service' ? SERVICE.id : customer.id)
    const secret = service?.credential ?? secrets[kind]!
    const revocable =
      kind === 'refresh token' ? issued.refresh_token : (await customer.issue()).json.access_token
    return { id, secret, customer, revocable, refreshToken: service ? issued.refresh_token : secret }
  }
}

/** As Bearer and as Basic; a refresh token also alone, in the body. */
async function tryRoute(route: string, { body, passes = isPass }: Rule, shown: Shown) {
  const byItself = shown.refreshToken === shown.secret ? [{}] : []
  const authorizations = shown.secret ? [bearer(shown.secret), byBasic(shown), ...byItself] : [{}]
  for (const authorization of authorizations) {
    const answer = await send(route, authorization, shown, body?.(shown))
    if (passes(answer)) return true
    expectRefusal(answer)
  }
  return false
}

function send(
  route: string,
  authorization: Record<string, string>,
  { customer }: Shown,
  content: object | URLSearchParams | undefined,
  query = '',
) {
  const [method = '', pattern = ''] = route.split(' ')
  const path = pattern
    .replace(':path{.+}', 'some/path')
    .replace(':customer', customer.id)
    .replace(':id', 'aaaaaaaaaaaaaaaaaaaaaaaa')
  const json = content !== undefined && !(content instanceof URLSearchParams)
  return assay.request(path + query, {
    method: method === 'ALL' ? 'GET' : method,
    headers: { ...authorization, ...(json && { 'Content-Type': 'application/json' }) },
    ...(content && { body: json ? JSON.stringify(content) : content }),
  })
}

const byBasic = ({ id, secret }: Shown) => ({ Authorization: basic(id, secret) })

/** Unauthorized callers learn nothing about what exists: 404 and 409 are only for authorized ones. */
const isPass = ({ status }: Answer) => status < 400 || status === 404 || status === 409

function expectRefusal({ status, json, headers }: Answer) {
  expect([200, 400, 401, 403]).toContain(status)
  if (status === 400)
    expect(['invalid_grant', 'unauthorized_client', 'invalid_request']).toContain(json.error)
  if (status === 401) expect(headers.get('www-authenticate')).toMatch(/^(Bearer|Basic) realm="assay"/)
}

describe.each(Object.entries(RULES))('H50 %s', (route, rule) => {
  test(`accepts: ${rule.may === EVERYONE ? 'everyone' : rule.may.join(', ')}`, async () => {
    const show = rule.ends ? await credentials() : shared
    const passed: Credential[] = []
    // In reverse, so that the account's own token, which logs out, comes late.
    for (const kind of CREDENTIALS.toReversed())
      if (await tryRoute(route, rule, await show(kind))) passed.unshift(kind)
    expect(passed).toEqual(CREDENTIALS.filter(kind => rule.may.includes(kind)))
  })
})

test('every route with a JSON body refuses one with a repeated member', async () => {
  const refused: string[] = []
  for (const [route, { may, body }] of Object.entries(RULES)) {
    const shown = await shared(may.find(kind => kind !== 'nothing') ?? 'garbage')
    if (body === undefined || body(shown) instanceof URLSearchParams) continue
    const [method = '', pattern = ''] = route.split(' ')
    const path = pattern.replace(':customer', shown.customer.id).replace(':id', 'aaaaaaaaaaaaaaaaaaaaaaaa')
    const headers = { ...bearer(shown.secret), 'Content-Type': 'application/json' }
    const { status, text } = await assay.request(path, { method, headers, body: '{"a":1,"\\u0061":2}' })
    expect([route, status, text]).toEqual([
      route,
      400,
      expect.stringContaining('field of the body is repeated'),
    ])
    refused.push(route)
  }
  expect(refused.length).toBeGreaterThanOrEqual(17)
})

describe.each(Object.entries(RULES).filter(([route]) => !route.includes('/verify')))(
  '%s',
  (route, { may, body }) => {
    test('refuses an unknown or empty query parameter', async () => {
      const shown = await (await credentials())(may[0]!)
      const authorization = bearer(shown.secret)
      for (const query of ['?wiat=all', '?wiat=', '?wiat', '?wait=', '?wait=All', '?limit=&subject=']) {
        const { status, json } = await send(route, authorization, shown, body?.(shown), query)
        expect([query, status, json.error]).toEqual([query, 400, 'invalid_request'])
      }
    })
  },
)

test.each(Object.entries(RULES).filter(([, { body }]) => body !== undefined))(
  '%s refuses a body with a Content-Encoding, with an error that says so',
  async (route, { may, body }) => {
    const shown = await (await credentials())(may[0]!)
    const authorization = bearer(shown.secret)
    for (const encoding of ['gzip', 'GZIP', 'br', 'identity, gzip']) {
      const headers = { ...authorization, 'Content-Encoding': encoding }
      const answer = await send(route, headers, shown, body!(shown))
      expect([answer.status, answer.json.error]).toEqual([415, 'invalid_request'])
      expect(answer.headers.get('accept-encoding')).toBe('identity')
      expect(answer.text).toContain('Content-Encoding')
    }
    const plain = await send(route, { ...authorization, 'Content-Encoding': 'identity' }, shown, body!(shown))
    expect(plain.status).not.toBe(415)
  },
)

test('no request passes Hono unobserved: every route but /verify runs the middleware that counts and logs first', () => {
  for (const route of routes().filter(each => !each.includes('/verify'))) {
    const [method = '', path = ''] = route.split(' ')
    const [first] = assay.app.router.match(method, path.replace(/:\w+/g, 'x'))[0]
    expect(`${route}: ${first![0][0].name}`).toBe(`${route}: observe`)
  }
})

test('H50 unknown paths are 404, for every caller', async () => {
  const paths = [
    '/',
    '/admin',
    '/admin/customers/',
    '/api',
    '/api/',
    '/debug',
    '/.env',
    '/verifyx',
    '/metrics/',
  ]
  for (const kind of CREDENTIALS)
    for (const path of [...paths, '/Verify', '//verify', '/api/auth', '/api/keys/', '/introspect/x'])
      expect((await assay.get(path, (await shared(kind)).secret || undefined)).status).toBe(404)
})

test('a wrong method gets a list of the allowed ones, from the same table', async () => {
  for (const route of Object.keys(RULES).filter(each => !each.includes('/verify'))) {
    const path = route.split(' ')[1]!
    const allowed = Object.keys(RULES).filter(each => each.split(' ')[1] === path)
    const answer = await assay.request(path.replace(/:\w+/g, 'x'), { method: 'OPTIONS' })
    expect(answer.status).toBe(405)
    expect(answer.headers.get('allow')?.split(', ').sort()).toEqual(
      allowed.map(each => each.split(' ')[0]).sort(),
    )
  }
})

test('a page of another origin is told to use a gateway, and cannot read any answer', async () => {
  const origin = { Origin: 'https://app.example.com' }
  const preflight = { ...origin, 'Access-Control-Request-Method': 'POST' }
  const preflights = await Promise.all(
    ['/token', '/refresh', '/api/auth/login'].map(path =>
      assay.request(path, { method: 'OPTIONS', headers: preflight }),
    ),
  )
  for (const { status, headers, json } of preflights) {
    expect([status, headers.get('allow')]).toEqual([405, 'POST'])
    expect(json.error_description ?? json.detail).toMatch(
      /^method not allowed; use POST; a page of another origin .*gateway/,
    )
  }
  const answers = [
    ...preflights,
    await assay.postForm('/refresh', { refresh_token: 'x' }, origin),
    await assay.get('/.well-known/oauth-authorization-server', undefined, origin),
    await assay.request('/verify', { method: 'OPTIONS', headers: preflight }),
  ]
  for (const { headers } of answers)
    expect([...headers.keys()].filter(name => name.startsWith('access-control-'))).toEqual([])
  expect(answers.at(-1)!.status).toBe(401)
})
