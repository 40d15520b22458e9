import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { ask } from '../support/ask.ts'
import { type Forger, forger, notRefused } from '../support/forge.ts'
import { bearer, type Customer, makeWorld, type Replica, type World } from '../support/world.ts'

/** Claims of the wrong form, signed with a customer's stolen secret. The answer is an ordinary refusal, never a server error. */

let world: World
let assay: Replica
let customer: Customer

beforeAll(async () => {
  world = await makeWorld()
  assay = await world.replica()
  customer = await assay.signUp()
})
afterAll(() => world.stop())

async function expectAllRefused(tokens: string[]) {
  expect(tokens.length).toBeGreaterThan(0)
  expect((await notRefused(assay, tokens, customer.apiKey)).wrong).toEqual([])
}

describe.each(['access', 'refresh'] as const)('with the real %s key', use => {
  let real: Forger

  beforeAll(async () => {
    real = await forger(assay, customer, use)
  })

  const WRONG: object[] = [
    { client_id: undefined },
    { client_id: 7 },
    { sub: undefined },
    { sub: null },
    { sub: ['user-1'] },
    { jti: undefined },
    { jti: 1 },
    { sid: 7 },
    { sid: null },
    { gen: '1' },
    { gen: 0 },
    { gen: 1.5 },
    { gen: undefined },
    { aud: undefined },
    { aud: [] },
    { aud: [1] },
    { aud: {} },
  ]

  test('H10 a claim of the wrong type is refused, even the least important one', async () => {
    const own =
      use === 'access'
        ? [{ ep: 1 }, { ep: '1' }, { ep: '-1.0' }, { ep: '0.0.0' }, { ep: undefined }, { scope: ['read'] }]
        : [{ aud: 'api' }, { aud: ['refresh'] }, { sid: undefined }]
    const more = use === 'access' ? [{ iss: undefined }, { iss: [] }, { claims: [] }, { claims: 'x' }] : []
    await expectAllRefused([...WRONG, ...own, ...more].map(claims => real.withClaims(claims)))
  })
})

test.each(['access', 'refresh'] as const)(
  'H10 a claim that the server never writes is not passed on from an %s token',
  async use => {
    const real = await forger(assay, customer, use)
    for (const more of [
      { username: 'root' },
      { active: false },
      { nbf: 1 },
      { extra: null },
      { roles: ['a'] },
    ])
      for (const authorization of [undefined, `Bearer ${customer.apiKey}`]) {
        const { json } = await assay.introspect(real.withClaims(more), authorization)
        const [name = ''] = Object.keys(more)
        if (name !== 'active') expect(json).not.toHaveProperty(name)
      }
  },
)

/** Values that the database cannot store: each would make a statement fail. */
const UNSTORABLE: object[] = [
  { gen: 2 ** 31 },
  { gen: 2 ** 32 + 1 },
  { gen: Number.MAX_SAFE_INTEGER },
  ...['a\0b', '\ud800', 'x'.repeat(3_000)].flatMap(odd => [
    { sid: odd },
    { sub: odd },
    { jti: odd },
    { scope: odd },
    { aud: odd },
  ]),
  { exp: Number.MAX_SAFE_INTEGER },
  { iat: 1 },
]

const NO_FAULT = [200, 400, 401, 403]

test('H10 a refresh token with impossible session values is refused without a server error', async () => {
  const faults: string[] = []
  for (const claims of UNSTORABLE) {
    const real = await forger(assay, customer, 'refresh')
    const token = real.withClaims(claims)
    const answers = {
      refresh: await assay.refresh(token),
      introspect: await assay.introspect(token, `Bearer ${customer.apiKey}`),
      revoke: await assay.postForm('/revoke', { token }),
    }
    for (const [name, { status }] of Object.entries(answers))
      if (!NO_FAULT.includes(status)) faults.push(`${name} ${status}: ${JSON.stringify(claims).slice(0, 40)}`)
  }
  expect(faults).toEqual([])
})

test('H10 an access token with impossible session values is refused without a server error', async () => {
  const faults: string[] = []
  for (const claims of UNSTORABLE) {
    // A new session each time, because the last two end it.
    const [one, two] = [await forger(assay, customer, 'access'), await forger(assay, customer, 'access')]
    const [token, other] = [one.withClaims(claims), two.withClaims(claims)]
    const key = bearer(customer.apiKey)
    const answers = {
      verify: await ask(assay.app, '/verify', { headers: bearer(token) }),
      me: await assay.get('/api/auth/me', token),
      introspect: await ask(assay.app, '/introspect', { headers: bearer(token) }),
      revoke: await assay.postForm('/revoke', { token }, key),
      session: await assay.postForm('/revoke', { token: other, session: 'true' }, key),
    }
    for (const [name, { status }] of Object.entries(answers))
      if (!NO_FAULT.includes(status)) faults.push(`${name} ${status}: ${JSON.stringify(claims).slice(0, 40)}`)
  }
  expect(faults).toEqual([])
})

test('H10 forgeries with one stolen secret do not lose the confirmations of others', async () => {
  const victim = await assay.signUp()
  const { refresh_token } = await victim.session()
  const next = (await assay.refresh(refresh_token)).json
  const forged = await forger(assay, customer, 'access')
  await assay.verify(forged.withClaims({ gen: 2 ** 40 }))
  await assay.verify(next.access_token)
  await assay.sessions.flush()
  const [row] = await world.admin.query<{ confirmed: boolean }>(
    'select confirmed_at is not null as confirmed from assay.sessions where id = $1',
    [next.session_id],
  )
  expect(row?.confirmed).toBe(true)
})

test("H17 forgeries with one stolen secret end no other customer's token or session, even if they name them", async () => {
  const a = await forger(assay, customer, 'access')
  const b = await forger(assay, await assay.signUp(), 'access')
  const { jti, sid, gen } = b.claims
  for (const form of [{}, { session: 'true' }]) {
    const token = (await forger(assay, customer, 'access')).withClaims({ jti, sid, gen })
    await assay.postForm('/revoke', { token, ...form }, bearer(customer.apiKey))
  }
  await assay.postForm('/revoke', { token: a.withClaims({ jti }) }, bearer(customer.apiKey))
  expect((await assay.verify(b.token)).status).toBe(200)
  expect((await assay.refresh(b.tokens.refresh_token)).status).toBe(200)
})
