import { afterAll, beforeAll, expect, test } from 'vitest'
import { bearer, type Customer, makeWorld, type Replica, type World } from '../support/world.ts'

/** Limits the writes and waits that one customer can cause with many concurrent requests for the same revocation. */

let world: World
let assay: Replica
let customer: Customer

beforeAll(async () => {
  world = await makeWorld()
  assay = await world.replica()
  customer = await assay.signUp()
})
afterAll(() => world.stop())

const atOnce = <Answer>(ask: () => Promise<Answer>) => Promise.all(Array.from({ length: 200 }, ask))

async function written(type: string) {
  const [row] = await world.admin.query<{ events: number; changes: number }>(
    `select (select count(*)::int from assay.audit_events where type = $1) as events,
      (select count(*)::int from assay.revocations where customer_id = $2) as changes`,
    [type, customer.id],
  )
  return row!
}

test('a token that is revoked 200 times concurrently is one event and one change', async () => {
  const before = await written('token.revoked')
  const { access_token: token } = (await customer.issue()).json
  const answers = await atOnce(() => assay.postForm('/revoke', { token }, bearer(customer.apiKey)))
  expect(answers.every(({ status }) => status === 200)).toBe(true)
  expect((await assay.verify(token)).status).toBe(401)
  const after = await written('token.revoked')
  expect([after.events - before.events, after.changes - before.changes]).toEqual([1, 1])
})

test('a customer that ends everything 200 times concurrently causes two events at most', async () => {
  const before = await written('customer.revoked')
  const { accessToken } = customer
  const answers = await atOnce(() =>
    assay.request('/api/sessions', { method: 'DELETE', headers: bearer(accessToken) }),
  )
  expect(answers.some(({ status }) => status === 204)).toBe(true)
  // The token ends with the first act, so later requests are refused.
  expect(answers.every(({ status }) => status === 204 || status === 401)).toBe(true)
  expect((await assay.verify(accessToken)).status).toBe(401)
  const { events } = await written('customer.revoked')
  expect(events - before.events).toBeGreaterThanOrEqual(1)
  expect(events - before.events).toBeLessThanOrEqual(2)
})
