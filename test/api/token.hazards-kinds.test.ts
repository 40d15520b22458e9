import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Forger, forger, notRefused } from '../support/forge.ts'
import { trials } from '../support/trials.ts'
import {
  ADMIN_TOKEN,
  type Answer,
  basic,
  bearer,
  type Customer,
  makeWorld,
  type Replica,
  SERVICE,
  type World,
} from '../support/world.ts'

/** Credentials presented as another kind, and one customer's presented as another's. */

let world: World
let assay: Replica
let customer: Customer

beforeAll(async () => {
  world = await makeWorld()
  assay = await world.replica()
  customer = await assay.signUp()
})
afterAll(() => world.stop())

const KINDS = ['account token', 'issued token', 'refresh token', 'API key', 'service', 'operator token']
type Kind = (typeof KINDS)[number]

/** Creates new credentials for every request, because some endpoints use a refresh token up. */
async function credential(kind: Kind): Promise<{ id: string; secret: string }> {
  const { access_token, refresh_token } = await customer.session()
  const secrets: Record<Kind, string> = {
    'account token': customer.accessToken,
    'issued token': access_token,
    'refresh token': refresh_token,
    'API key': customer.apiKey,
    service: SERVICE.secret,
    'operator token': ADMIN_TOKEN,
  }
  return { id: kind === 'service' ? SERVICE.id : customer.id, secret: secrets[kind]! }
}

type Use = (headers: Record<string, string>, form: Record<string, string>, secret: string) => Promise<Answer>

/** The kinds that each endpoint accepts. Every kind is tried as Bearer, as Basic, and in the form where there is one. */
const ENDPOINTS: Record<string, { may: Kind[]; use: Use }> = {
  'GET /verify': { may: ['account token', 'issued token'], use: headers => get('/verify', headers) },
  'GET /api/auth/me': {
    may: ['account token'],
    use: headers => get('/api/auth/me', headers),
  },
  'GET /api/keys': { may: ['account token'], use: headers => get('/api/keys', headers) },
  'POST /issue': { may: ['API key'], use: headers => assay.postJson('/issue', {}, headers) },
  'POST /token': {
    may: ['API key'],
    use: (headers, form) => assay.postForm('/token', { grant_type: 'client_credentials', ...form }, headers),
  },
  'POST /refresh': {
    may: ['refresh token'],
    use: (_, __, secret) => assay.refresh(secret),
  },
  'POST /introspect': {
    may: ['API key', 'service'],
    use: (headers, form) => assay.postForm('/introspect', { token: 'x', ...form }, headers),
  },
  'POST /revoke': {
    may: ['API key'],
    use: async (headers, form) => {
      const { access_token: token } = (await customer.issue()).json
      return assay.postForm('/revoke', { token, ...form }, headers)
    },
  },
  'GET /metrics': { may: ['operator token'], use: headers => get('/metrics', headers) },
}

const get = (path: string, headers: Record<string, string>) => assay.get(path, undefined, headers)

describe.each(Object.entries(ENDPOINTS))('H16 %s', (_, { may, use }) => {
  test.each(KINDS)('by the %s (CVE-2026-41164)', async kind => {
    const statuses: number[] = []
    for (const present of [
      ({ secret }: Shown) => use(bearer(secret), {}, secret),
      ({ id, secret }: Shown) => use({ Authorization: basic(id, secret) }, {}, secret),
      ({ id, secret }: Shown) => use({}, { client_id: id, client_secret: secret }, secret),
    ])
      statuses.push((await present(await credential(kind))).status)
    if (may.includes(kind)) expect(statuses).toContain(200)
    else for (const status of statuses) expect([400, 401, 403]).toContain(status)
  })
})

type Shown = { id: string; secret: string }

test('H16 a key signs one kind of token only, whatever claims are signed (CVE-2026-41164)', async () => {
  const [access, refresh] = [
    await forger(assay, customer, 'access'),
    await forger(assay, customer, 'refresh'),
  ]
  const swapped = [
    refresh.texts(refresh.headerText, access.claimsText),
    access.texts(access.headerText, refresh.claimsText),
    refresh.texts(access.headerText, access.claimsText),
    access.texts(refresh.headerText, refresh.claimsText),
  ]
  expect((await notRefused(assay, swapped, customer.apiKey)).wrong).toEqual([])
  expect((await assay.verify(access.token)).status).toBe(200)
  expect((await assay.refresh(refresh.token)).status).toBe(200)
})

/** As many customers as make a hundred pairs, or ten thousand in the long run. */
const CUSTOMERS = trials(101, 11)

describe(`H17 of ${CUSTOMERS} customers none is mistaken for another (CVE-2026-23552, CVE-2026-1529)`, () => {
  let forgers: Forger[]

  beforeAll(async () => {
    forgers = []
    for (let i = 0; i < CUSTOMERS; i++) forgers.push(await forger(assay, await assay.signUp(), 'access'))
  })

  const pairs = () => forgers.flatMap(a => forgers.filter(b => b !== a).map(b => [a, b] as const))

  /** Attempts of A, with its own real key, to pass as B. */
  const confusions = (a: Forger, b: Forger) => [
    a.segments(b.headerSegment, a.claimsSegment),
    a.segments(b.headerSegment, b.claimsSegment),
    a.segments(a.headerSegment, b.claimsSegment),
    a.withClaims({ client_id: b.customer.id }),
    a.withClaims({ client_id: [a.customer.id, b.customer.id] }),
    a.withClaims({ iss: `http://assay.test/${b.customer.id}` }),
    `${a.headerSegment}.${b.claimsSegment}.${b.signature}`,
    `${b.headerSegment}.${b.claimsSegment}.${a.signature}`,
  ]

  test("H17 a token with another's kid, client_id, issuer or claims is refused, in every pair", async () => {
    expect(pairs().length).toBeGreaterThan(trials(10_000))
    for (const [a, b] of pairs())
      for (const token of confusions(a, b)) {
        expect((await assay.verify(token)).status).toBe(401)
        expect((await assay.introspect(token)).json).toEqual({ active: false })
      }
  })

  test('H17 a customer that names another as its subject is still only itself', async () => {
    for (const [a, b] of pairs().slice(0, 30)) {
      const token = a.withClaims({ sub: b.customer.id, aud: b.customer.id })
      expect((await assay.verify(token)).headers.get('x-auth-customer')).toBe(a.customer.id)
      expect((await assay.verify(token, `/verify?customer=${b.customer.id}`)).status).toBe(403)
      expect((await assay.get('/introspect', token)).json.client_id).toBe(a.customer.id)
    }
  })

  test("H17 an API key neither sees nor ends another customer's tokens, and opens none of its resources", async () => {
    for (const [a, b] of pairs()) {
      const key = `Bearer ${a.customer.apiKey}`
      expect((await assay.introspect(b.token, key)).text).toBe('{"active":false}')
    }
    const [a, b] = pairs()[0]!
    for (const token of [b.token, b.tokens.refresh_token])
      expect((await assay.postForm('/revoke', { token }, bearer(a.customer.apiKey))).status).toBe(200)
    expect((await assay.verify(b.token)).status).toBe(200)
    const mixed = basic(b.customer.id, a.customer.apiKey)
    expect((await assay.introspect(b.token, mixed)).status).toBe(401)
    const refresh = { refresh_token: b.tokens.refresh_token }
    for (const headers of [
      bearer(a.customer.apiKey),
      { Authorization: basic(a.customer.id, a.customer.apiKey) },
    ])
      expect((await assay.postForm('/refresh', refresh, headers)).json.error).toBe('invalid_grant')
    expect((await assay.postForm('/refresh', { ...refresh, client_id: a.customer.id })).status).toBe(400)
    expect((await assay.postForm('/refresh', refresh, bearer(b.customer.apiKey))).status).toBe(200)
  })

  test("H17 a refresh token with another's kid, client_id or session is refused", async () => {
    const [a, b] = [
      await forger(assay, await assay.signUp(), 'refresh'),
      await forger(assay, await assay.signUp(), 'refresh'),
    ]
    const tries = [...confusions(a, b), a.withClaims({ sid: b.claims.sid }), a.withClaims({ sid: 'x' })]
    // A refresh token has no issuer.
    tries.splice(5, 1)
    for (const token of tries) expect((await assay.refresh(token)).json.error).toBe('invalid_grant')
    for (const { token } of [a, b]) expect((await assay.refresh(token)).status).toBe(200)
  })
})
