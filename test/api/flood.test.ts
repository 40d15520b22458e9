import { randomBytes } from 'node:crypto'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { formatKid } from '../../server/crypto/kid.ts'
import { newApiKeyId, newCredential, randomId } from '../../server/crypto/secret.ts'
import { holding, LOADER, type OwnReplica, replicaOn } from '../support/holding.ts'
import { bearer, makeWorld, type World } from '../support/world.ts'

/** Well-formed names of what never was: they may cost a MAC, and no query. */

let world: World

beforeAll(async () => {
  world = await makeWorld()
})
afterAll(() => world.stop())

const MANY = 10_000

async function countedReplica() {
  const database = holding(world.db)
  const replica = await replicaOn(world, database.db)
  const { access_token: token } = await signUp(replica)
  return { replica, database, token }
}

async function signUp(replica: OwnReplica) {
  const { json } = await replica.request('/api/auth/signup', {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify({
      email: `${randomBytes(6).toString('hex')}@example.com`,
      password: 'a long password',
    }),
  })
  return json as { access_token: string }
}

const base64url = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url')

const tokenUnder = (kid: string) =>
  `${base64url({ alg: 'HS512', typ: 'at+jwt', kid })}.${base64url({ sub: 'x' })}.${randomBytes(64).toString('base64url')}`

const wrongKey = () => randomBytes(32)

const kid = (installationKey: Uint8Array) =>
  formatKid(installationKey, { customerId: randomId(10), use: 'access', version: 1 })

const apiKey = (installationKey: Uint8Array) =>
  newCredential('assay_ak', newApiKeyId(installationKey, randomId(10))).text

/** Megabytes of heap that `run` leaves behind. */
async function kept(run: () => Promise<void>): Promise<number> {
  globalThis.gc?.()
  const before = process.memoryUsage().heapUsed
  await run()
  globalThis.gc?.()
  return (process.memoryUsage().heapUsed - before) / 2 ** 20
}

test('H24 ten thousand well-formed kids that nobody made cost no query', async () => {
  const { replica, database, token } = await countedReplica()
  expect((await replica.verify(token)).status).toBe(200)
  const loads = database.asked(LOADER)
  for (let i = 0; i < MANY; i++) {
    const headers = bearer(tokenUnder(kid(wrongKey())))
    expect((await replica.app.request('/verify', { headers })).status).toBe(401)
  }
  expect(database.asked(LOADER)).toBe(loads)
  expect(replica.keys.size).toBe(1)
  expect((await replica.verify(token)).status).toBe(200)
})

test('H24 ten thousand well-formed API keys that nobody made cost no query', async () => {
  const { replica, database } = await countedReplica()
  const loads = database.asked(LOADER)
  for (let i = 0; i < MANY; i++) {
    const headers = {
      ...bearer(apiKey(wrongKey())),
      'Content-Type': 'application/x-www-form-urlencoded',
    }
    const asked = { method: 'POST', headers, body: 'token=x' }
    const bindings = { incoming: { socket: { remoteAddress: '10.0.0.1' } } }
    expect((await replica.app.request('/introspect', asked, bindings as never)).status).toBe(401)
  }
  expect(database.asked(LOADER)).toBe(loads)
  expect(replica.keys.size).toBeLessThanOrEqual(1)
})

test('H25 names that we made of customers that are no more cost one query each, and little memory', async () => {
  const { replica, database, token } = await countedReplica()
  const { installationKey } = world.vault
  const tokens = Array.from({ length: 1_000 }, () => tokenUnder(kid(installationKey)))
  const flood = async () => {
    const statuses = await Promise.all(tokens.map(one => replica.verify(one)))
    expect(statuses.every(({ status }) => status === 401)).toBe(true)
  }
  const before = database.asked(LOADER)
  expect(await kept(flood)).toBeLessThan(50)
  expect(database.asked(LOADER) - before).toBe(tokens.length)
  await flood()
  expect(database.asked(LOADER) - before).toBe(tokens.length)
  expect((await replica.verify(token)).status).toBe(200)
})
