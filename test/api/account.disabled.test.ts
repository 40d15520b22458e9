import { afterAll, beforeAll, expect, test } from 'vitest'
import { setState } from '../support/plant.ts'
import { type Answer, bearer, type Customer, makeWorld, type Replica, type World } from '../support/world.ts'

let world: World
let assay: Replica
let other: Replica
let customer: Customer
let session: Awaited<ReturnType<Customer['session']>>
let stateless: string

beforeAll(async () => {
  world = await makeWorld()
  assay = await world.replica()
  other = await world.replica()
  customer = await assay.signUp()
  session = await customer.session()
  stateless = (await customer.issue()).json.access_token
  await setState(world, customer.id, 'disabled', [assay, other])
})
afterAll(() => world.stop())

const asked: [name: string, ask: (at: Replica) => Promise<Answer>, refusal: [number, string | undefined]][] =
  [
    ['verifying a user', at => at.verify(session.access_token), [401, undefined]],
    ['verifying a token without a session', at => at.verify(stateless), [401, undefined]],
    ['verifying the customer itself', at => at.verify(customer.accessToken), [401, undefined]],
    ['/api/auth/me', at => at.get('/api/auth/me', customer.accessToken), [401, 'invalid_token']],
    ['/api/keys', at => at.get('/api/keys', customer.accessToken), [401, 'invalid_token']],
    ['issuing', at => at.postJson('/issue', {}, bearer(customer.apiKey)), [403, 'customer_disabled']],
    [
      'starting a session',
      at => at.postJson('/issue', { refresh: true }, bearer(customer.apiKey)),
      [403, 'customer_disabled'],
    ],
    [
      'client credentials',
      at => at.postForm('/token', { grant_type: 'client_credentials' }, bearer(customer.apiKey)),
      [403, 'customer_disabled'],
    ],
    ['refreshing a user', at => at.refresh(session.refresh_token), [403, 'customer_disabled']],
    ['refreshing the customer', at => at.refresh(customer.refreshToken), [403, 'customer_disabled']],
    [
      'refreshing with its API key',
      at => at.postForm('/refresh', { refresh_token: session.refresh_token }, bearer(customer.apiKey)),
      [403, 'customer_disabled'],
    ],
    [
      'introspecting with its API key',
      at => at.postForm('/introspect', { token: stateless }, bearer(customer.apiKey)),
      [403, 'customer_disabled'],
    ],
    ['its sessions by API key', at => at.get('/api/sessions', customer.apiKey), [403, 'customer_disabled']],
    [
      'logging in',
      at => at.postJson('/api/auth/login', { email: customer.email, password: customer.password }),
      [403, 'customer_disabled'],
    ],
  ]

test.each(asked)(
  'H51 (CVE-2026-1609) a disabled customer is refused: %s',
  async (_, ask, [status, error]) => {
    for (const at of [assay, other]) {
      const answer = await ask(at)
      expect([answer.status, answer.json.error]).toEqual([status, error])
    }
  },
)

test('H51 the tokens of a disabled customer are inactive, and a gateway learns no more than that', async () => {
  for (const token of [session.access_token, stateless, customer.accessToken, session.refresh_token])
    expect((await assay.introspect(token)).text).toBe('{"active":false}')
})

test('H51 a customer that is enabled again can use its old tokens', async () => {
  await setState(world, customer.id, 'active', [assay, other])
  for (const at of [assay, other]) expect((await at.verify(session.access_token)).status).toBe(200)
  expect((await assay.refresh(session.refresh_token)).status).toBe(200)
  expect((await customer.issue()).status).toBe(200)
})
