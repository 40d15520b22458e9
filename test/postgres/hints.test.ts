import { expect, test } from 'vitest'
import { listenForHints } from '../../db/hints.ts'
import { bearer, makeWorld } from '../support/world.ts'

test('a replica that listens is told of a revocation elsewhere, and polls', async () => {
  const world = await makeWorld()
  const [here, there] = [await world.replica(), await world.replica()]
  const told = Promise.withResolvers<void>()
  const customer = await here.signUp()
  const { access_token: token } = await customer.session()
  const hints = await listenForHints(world.url!, () => told.resolve())
  expect(hints.heard).toBe(true)
  await here.postForm('/revoke', { token }, bearer(customer.apiKey))
  await told.promise
  there.bus.poke()
  await expect.poll(async () => (await there.verify(token)).status, { interval: 1 }).toBe(401)
  await hints.close()
  await world.stop()
})
