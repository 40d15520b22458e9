import { afterAll, beforeAll, expect, test } from 'vitest'
import { hear } from '../support/holding.ts'
import { logIn } from '../support/plant.ts'
import { bearer, type Customer, claimsOf, makeWorld, type Replica, type World } from '../support/world.ts'

/** Every rule that can end a token, alone and in combination, on the replica that acted and on another. */

let world: World
let here: Replica
let there: Replica

beforeAll(async () => {
  world = await makeWorld()
  here = await world.replica()
  there = await world.replica()
})
afterAll(() => world.stop())

const revokeSubject = ({ apiKey }: Customer, subject: string) =>
  here.postJson('/api/subjects/revoke', { subject }, bearer(apiKey))

const revokeCustomer = (accessToken: string) =>
  here.request('/api/sessions', { method: 'DELETE', headers: bearer(accessToken) })

const retireKey = (accessToken: string) =>
  here.postJson('/api/secrets/rotate', { use: 'access', now: true }, bearer(accessToken))

test('revoking a subject ends its tokens; new tokens and those of others stay valid', async () => {
  const customer = await here.signUp()
  const [ended, other] = [await customer.session(), await customer.session({ subject: 'user-2' })]
  await revokeSubject(customer, 'user-1')
  await hear(here, there)
  expect((await there.verify(ended.access_token)).status).toBe(401)
  expect((await here.refresh(ended.refresh_token)).json.error).toBe('invalid_grant')
  expect((await there.verify(other.access_token)).status).toBe(200)
  const renewed = await customer.session()
  expect((await there.verify(renewed.access_token)).status).toBe(200)
  expect((await there.refresh(renewed.refresh_token)).status).toBe(200)
})

test('revoking a customer ends all its tokens; new tokens are valid', async () => {
  const [customer, neighbour] = [await here.signUp(), await here.signUp()]
  const [ended, other] = [await customer.session(), await neighbour.session()]
  expect((await there.verify(ended.access_token)).status).toBe(200)
  await revokeCustomer(customer.accessToken)
  await hear(here, there)
  for (const replica of [here, there]) {
    expect((await replica.verify(ended.access_token)).status).toBe(401)
    expect((await replica.verify(other.access_token)).status).toBe(200)
  }
  expect((await here.refresh(ended.refresh_token)).json.error).toBe('invalid_grant')
  expect((await there.verify((await customer.session()).access_token)).status).toBe(200)
})

test('a lower epoch of a subject that arrives late changes nothing', async () => {
  const customer = await here.signUp()
  const token = (await customer.issue({ subject: 'user-1' })).json.access_token
  await revokeSubject(customer, 'user-1')
  await world.admin.query(
    `with numbered as (update assay.change_feed set seq = seq + 1 returning seq)
    insert into assay.revocations (seq, kind, customer_id, key, epoch, dead_after)
    select seq, 'subject', $1, 'user-1', 0, assay.now() + interval '1 day' from numbered`,
    [customer.id],
  )
  await hear(here, there)
  expect((await there.verify(token)).status).toBe(401)
})

const RULES = ['token', 'session', 'subject'] as const

const revokeOne = {
  token: (customer: Customer, { token }: Subject) =>
    here.postForm('/revoke', { token }, bearer(customer.apiKey)),
  session: (customer: Customer, { refreshToken }: Subject) =>
    here.postForm('/revoke', { token: refreshToken }, bearer(customer.apiKey)),
  subject: (customer: Customer, { subject }: Subject) => revokeSubject(customer, subject),
}

interface Subject {
  subject: string
  token: string
  refreshToken: string
}

/**
 * Eight sessions of one customer. The bits of a session's number say which `RULES` end it; then the customer's own rules
 * follow.
 */
async function combinations(wholeCustomer: boolean, key: boolean) {
  const customer = await here.signUp()
  const subjects = await Promise.all(
    Array.from({ length: 8 }, async (_, bits) => {
      const { access_token, refresh_token } = await customer.session({ subject: `user-${bits}` })
      return { subject: `user-${bits}`, token: access_token, refreshToken: refresh_token }
    }),
  )
  for (const { token } of subjects) expect((await there.verify(token)).status).toBe(200)
  for (const [bits, subject] of subjects.entries())
    for (const [bit, rule] of RULES.entries())
      if (bits & (1 << bit)) expect([200, 204]).toContain((await revokeOne[rule](customer, subject)).status)
  const own = await logIn(here, customer)
  if (key) expect((await retireKey(customer.accessToken)).status).toBe(200)
  const { json } = await here.refresh(own.refresh_token)
  if (wholeCustomer) expect((await revokeCustomer(json.access_token)).status).toBe(204)
  await hear(here, there)
  return subjects
}

test.each([
  [false, false],
  [false, true],
  [true, false],
  [true, true],
])(
  'H22 each rule ends a token regardless of the others; customer revoked %s, key retired %s (CVE-2026-8922)',
  async (wholeCustomer, key) => {
    const subjects = await combinations(wholeCustomer, key)
    for (const [bits, { token }] of subjects.entries()) {
      const ended = bits > 0 || wholeCustomer || key
      for (const replica of [here, there]) {
        expect((await replica.verify(token)).status, `rules ${bits}`).toBe(ended ? 401 : 200)
        const { json } = await replica.introspect(token)
        expect(json.active, `rules ${bits}, ${claimsOf(token).sub}`).toBe(!ended)
      }
    }
  },
)
