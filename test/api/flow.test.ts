import { afterAll, beforeAll, expect, test } from 'vitest'
import { bearer, makeWorld, type Replica, type World } from '../support/world.ts'

let world: World
let assay: Replica

beforeAll(async () => {
  world = await makeWorld()
  assay = await world.replica()
})
afterAll(() => world.stop())

test('two customers sign up, and each sees its own data with its own token', async () => {
  const one = await assay.signUp()
  const two = await assay.signUp()
  for (const customer of [one, two]) {
    const { status, json } = await assay.get('/api/auth/me', customer.accessToken)
    expect(status).toBe(200)
    expect(json).toMatchObject({ id: customer.id, email: customer.email })
  }
  expect(one.id).not.toBe(two.id)
})

test('a token is accepted, and refused once it is revoked', async () => {
  const customer = await assay.signUp()
  const { access_token: token } = await customer.session()
  expect((await assay.verify(token)).status).toBe(200)
  const revoked = await assay.postForm('/revoke', { token }, bearer(customer.apiKey))
  expect(revoked.status).toBe(200)
  expect((await assay.verify(token)).status).toBe(401)
  expect((await assay.introspect(token)).text).toBe('{"active":false}')
})

test('a lost refresh response can be retried an hour later', async () => {
  const customer = await assay.signUp()
  const { refresh_token } = await customer.session()
  const lost = await assay.refresh(refresh_token)
  await world.advance(3_600_000)
  const retried = await assay.refresh(refresh_token)
  expect(retried.status).toBe(200)
  expect(retried.json.refresh_token).toBe(lost.json.refresh_token)
})
