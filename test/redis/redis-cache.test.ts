import { afterAll, beforeAll, expect, test } from 'vitest'
import type { Redis } from '../../db/redis.ts'
import { formatKid } from '../../server/jwt/kid.ts'
import { hmacKeysOf } from '../support/forge.ts'
import { hear, LOADER, POLL } from '../support/holding.ts'
import { setState } from '../support/plant.ts'
import { coldReplica, outcomes, type RedisWorld, redisWorld, shelved } from '../support/redis-key-cache.ts'
import { ADMIN_TOKEN, basic, bearer, type Customer, type Replica, type World } from '../support/world.ts'

let made: RedisWorld
let world: World
let here: Replica

beforeAll(async () => {
  made = await redisWorld()
  ;({ world, here } = made)
})
afterAll(() => made.stop())

const countsOf = (replica: Pick<Replica, 'request'>) => outcomes(replica, ADMIN_TOKEN)

const rotate = (customer: Customer, body: object) =>
  here.postJson('/api/secrets/rotate', body, bearer(customer.accessToken))

test('a record that one replica has read is used by another without a query', async () => {
  const { token } = await shelved(made)
  const { replica, database, loads } = await coldReplica(world)
  const others = () => database.total() - database.asked(POLL)
  const before = others()
  expect((await replica.verify(token)).status).toBe(200)
  expect(others()).toBe(before)
  expect(loads()).toBe(0)
  expect(await countsOf(replica)).toMatchObject({ used: 1, refused: 0, forged: 0, missing: 0 })
})

test('an API key can be authenticated with a record from Redis', async () => {
  const { customer, token } = await shelved(made)
  const { replica, loads } = await coldReplica(world)
  const answer = await replica.post('/introspect', { token }, bearer(customer.apiKey))
  expect(answer.json.active).toBe(true)
  expect(loads()).toBe(0)
})

test('Redis contains no plaintext secret, token, password, email or address', async () => {
  const { customer, token } = await shelved(made)
  await here.postJson(
    '/api/auth/login',
    { email: customer.email, password: customer.password },
    { 'X-Forwarded-For': '198.51.100.77' },
  )
  const names = await made.names()
  const values = await Promise.all(names.map(name => made.redis.get(name)))
  const all = JSON.stringify([names, values])
  // The record, and the limits of signup, login by address, and login by email.
  expect(names.length).toBeGreaterThanOrEqual(4)
  const record = await here.keys.load(customer.id)
  const keys = hmacKeysOf(record).flatMap(({ secret }) => [secret, secret.subarray(0, 16)])
  const bytes = [...keys, world.keyRing.installationKey, world.keyRing.current.bytes].map(key =>
    Buffer.from(key),
  )
  const spelt = bytes.flatMap(key =>
    (['base64', 'base64url', 'hex', 'latin1'] as const).map(as => key.toString(as)),
  )
  const texts = [token, customer.apiKey, customer.email, customer.password, '198.51.100.77', ...spelt]
  for (const text of texts) expect(all.includes(text.replace(/=+$/, ''))).toBe(false)
})

test('the record of an erased customer is deleted from Redis too', async () => {
  const { customer } = await shelved(made)
  const erased = await here.request(`/admin/customers/${customer.id}`, {
    method: 'DELETE',
    headers: bearer(ADMIN_TOKEN),
  })
  expect(erased.status).toBe(200)
  expect(await made.redis.exists(made.nameOf(customer.id))).toBe(0)
})

test('H20 an old entry that is restored after the customer was disabled is not used', async () => {
  const { customer, token, entry } = await shelved(made)
  await setState(world, customer.id, 'disabled', [])
  await made.put(customer.id, entry)
  // A replica that has started since then, and has the change from its first poll.
  const { replica, loads } = await coldReplica(world)
  expect((await replica.verify(token)).status).toBe(401)
  expect(loads()).toBe(1)
  expect(await countsOf(replica)).toMatchObject({ used: 0, refused: 1 })
})

test('H20 an old entry that is restored after a leaked secret was rotated is not used', async () => {
  const { customer, token, entry } = await shelved(made)
  expect((await rotate(customer, { use: 'access', now: true })).status).toBe(200)
  const { replica } = await coldReplica(world)
  const { access_token: newer } = await customer.session()
  for (const asked of [replica, here]) {
    asked.keys.forget.all()
    await made.put(customer.id, entry)
    await hear(asked)
    expect((await asked.verify(token)).status).toBe(401)
    await made.put(customer.id, entry)
    expect((await asked.verify(newer)).status).toBe(200)
  }
  expect(await countsOf(replica)).toMatchObject({ used: 0 })
})

test('H20 an old entry that is restored after an API key was deleted does not make the key valid', async () => {
  const { customer, token, entry } = await shelved(made)
  const { json: keys } = await here.get('/api/keys', customer.accessToken)
  const { id } = keys.keys[0]
  const { status } = await here.request(`/api/keys/${id}`, {
    method: 'DELETE',
    headers: bearer(customer.accessToken),
  })
  expect(status).toBe(204)
  await made.put(customer.id, entry)
  const { replica } = await coldReplica(world)
  expect((await replica.post('/introspect', { token }, bearer(customer.apiKey))).status).toBe(401)
})

test('H20 a replica that has not read a change uses an entry like a record in its memory, and drops it with its next poll', async () => {
  const { customer, token } = await shelved(made)
  const { replica, database } = await coldReplica(world)
  const held = database.hold(POLL)
  await held.has
  await setState(world, customer.id, 'disabled', [])
  expect((await replica.verify(token)).status).toBe(200)
  held.release()
  await hear(replica)
  expect((await replica.verify(token)).status).toBe(401)
})

test('H23 an entry in transit while a change is read is not used', async () => {
  const { customer, token } = await shelved(made)
  const [reached, released] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
  const slow = (redis: Redis): Redis => ({
    ...redis,
    async get(key, most) {
      const entry = await redis.get(key, most)
      reached.resolve()
      await released.promise
      return entry
    },
  })
  const { replica, loads } = await coldReplica(world, slow)
  const verified = replica.verify(token)
  await reached.promise
  await setState(world, customer.id, 'disabled', [replica])
  released.resolve()
  expect((await verified).status).toBe(401)
  expect(loads()).toBe(1)
})

test('H23 an entry of a database that was restored since is not used', async () => {
  const { customer, token } = await shelved(made)
  await setState(world, customer.id, 'active', [here])
  await made.remove(customer.id)
  expect((await here.verify(token)).status).toBe(200)
  const entry = await made.entryOf(customer.id)
  const { replica, loads } = await coldReplica(world)
  await world.admin.query(`update assay.customers set state = 'disabled' where id = $1`, [customer.id])
  // As after restoring a backup: the counter is lower than the one that the entry has seen.
  await world.admin.query(
    `with back as (update assay.change_feed set seq = seq - 1 returning seq)
    delete from assay.revocations r using back where r.seq > back.seq`,
  )
  await hear(replica)
  expect(replica.changeFeed.era).toBe(1)
  await made.put(customer.id, entry)
  expect((await replica.verify(token)).status).toBe(401)
  expect(loads()).toBe(1)
})

test('an API key newer than the entry works at once', async () => {
  const { customer, token } = await shelved(made)
  const { json: key } = await here.postJson(
    '/api/keys',
    { name: 'newer', scopes: ['read'] },
    bearer(customer.accessToken),
  )
  const { replica, loads } = await coldReplica(world)
  const { status, json } = await replica.post('/introspect', { token }, bearer(key.api_key))
  expect([status, json.active]).toEqual([200, true])
  expect(loads()).toBe(1)
  // The record read for it is now in Redis for the next replica.
  await expect.poll(async () => (await made.entryOf(customer.id)).includes(key.id)).toBe(true)
})

test('a replica that has not read a rotation signs with the new secret, not with the entry’s', async () => {
  const { customer, token, entry } = await shelved(made)
  const { replica, database, loads } = await coldReplica(world)
  const held = database.hold(POLL)
  await held.has
  expect((await rotate(customer, {})).status).toBe(200)
  await made.put(customer.id, entry)
  const issued = await replica.post(
    '/token',
    { grant_type: 'client_credentials', scope: 'read' },
    { Authorization: basic(customer.id, customer.apiKey) },
  )
  expect(issued.status).toBe(200)
  expect(issued.json.access_token.split('.')[0]).not.toBe(token.split('.')[0])
  expect((await here.verify(issued.json.access_token)).status).toBe(200)
  expect(loads()).toBe(1)
  held.release()
})

test('a record from before everyone was revoked remains usable, and accepts no earlier token', async () => {
  const { customer, token } = await shelved(made)
  const { replica, loads } = await coldReplica(world)
  const revoked = await here.postJson('/admin/revoke', { everyone: true }, bearer(ADMIN_TOKEN))
  expect(revoked.status).toBe(204)
  await hear(replica)
  expect((await replica.verify(token)).status).toBe(401)
  const { access_token } = await customer.session()
  expect((await replica.verify(access_token)).status).toBe(200)
  expect(loads()).toBe(0)
})

test('missing customers, and those whose row cannot be decrypted, get no entries', async () => {
  const { customer, token } = await shelved(made)
  const { replica, database } = await coldReplica(world)
  const absent = 'a'.repeat(16)
  const kid = formatKid(world.keyRing.installationKey, { customerId: absent, use: 'access', version: 1 })
  const header = Buffer.from(JSON.stringify({ alg: 'HS512', typ: 'at+jwt', kid })).toString('base64url')
  expect((await replica.verify(`${header}.${token.split('.').slice(1).join('.')}`)).status).toBe(401)
  await made.remove(customer.id)
  await world.admin.query(
    `update assay.signing_keys set sealed_secret = set_byte(sealed_secret, 100, get_byte(sealed_secret, 100) # 1)
    where customer_id = $1`,
    [customer.id],
  )
  expect((await replica.verify(token)).status).toBe(503)
  expect(database.asked(LOADER)).toBe(2)
  // Once this is set, any later entry of the replica has been set too.
  await shelved(made)
  expect(await made.redis.exists([made.nameOf(absent), made.nameOf(customer.id)])).toBe(0)
})
