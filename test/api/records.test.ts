import { randomBytes } from 'node:crypto'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { open, seal } from '../../server/crypto/envelope.ts'
import { formatKid } from '../../server/jwt/kid.ts'
import { DATA_KEY_ID, dataKeyContext } from '../../server/keys/customer-keys.ts'
import { hear, holding, LOADER, replicaOn } from '../support/holding.ts'
import { publishCustomer } from '../support/plant.ts'
import { makeWorld, type Replica, type World } from '../support/world.ts'

let world: World
let here: Replica

beforeAll(async () => {
  world = await makeWorld()
  here = await world.replica()
})
afterAll(() => world.stop())

/** A replica that has cached no customer yet, whose loads can be held back and counted. */
async function coldReplica(settings = {}) {
  const database = holding(world.db)
  const replica = await replicaOn(world, database.db, settings)
  return { replica, database, loads: () => database.asked(LOADER) }
}

/** A customer with its own token. */
async function holder() {
  const customer = await here.signUp()
  const { access_token } = await customer.session()
  return { customer, token: access_token }
}

const setState = (id: string, state: string) =>
  world.admin.query('update assay.customers set state = $1 where id = $2', [state, id])

test('H23 a record read before a change is not used if it arrives after the change', async () => {
  const { customer, token } = await holder()
  const { replica, database, loads } = await coldReplica()
  const held = database.hold(LOADER)
  const verified = replica.verify(token)
  await held.has
  await setState(customer.id, 'disabled')
  await publishCustomer(world, customer.id, [])
  await hear(replica)
  held.release()
  expect((await verified).status).toBe(401)
  expect(loads()).toBe(2)
})

test('H23 a record that arrives before the poll with a change is dropped by that poll', async () => {
  const { customer, token } = await holder()
  const { replica } = await coldReplica()
  expect((await replica.verify(token)).status).toBe(200)
  await setState(customer.id, 'disabled')
  await publishCustomer(world, customer.id, [])
  await hear(replica)
  expect((await replica.verify(token)).status).toBe(401)
  await setState(customer.id, 'active')
  await publishCustomer(world, customer.id, [])
  await hear(replica)
  expect((await replica.verify(token)).status).toBe(200)
})

test('H23 a record read before a full reload is not used', async () => {
  const { customer, token } = await holder()
  await publishCustomer(world, customer.id, [])
  const { replica, database } = await coldReplica()
  const held = database.hold(LOADER)
  const verified = replica.verify(token)
  await held.has
  await setState(customer.id, 'disabled')
  // As after restoring a backup: the counter is lower than the one that the load has seen.
  await world.admin.query(
    `with back as (update assay.change_feed set seq = seq - 1 returning seq)
    delete from assay.revocations r using back where r.seq > back.seq`,
  )
  await hear(replica)
  expect(replica.changeFeed.era).toBe(1)
  held.release()
  expect((await verified).status).toBe(401)
})

test('H23 a record from a server on another timeline is not used', async () => {
  const { token } = await holder()
  const { replica, database, loads } = await coldReplica()
  database.otherTimeline(LOADER)
  const { status, headers } = await replica.verify(token)
  expect(status).toBe(503)
  expect(headers.get('retry-after')).toBe('1')
  expect(loads()).toBe(3)
  database.otherTimeline(undefined)
  expect((await replica.verify(token)).status).toBe(200)
})

test('a customer that changes on every read is unknown, not refused, and known again afterwards', async () => {
  const { customer, token } = await holder()
  const { replica, database, loads } = await coldReplica()
  let held = database.hold(LOADER)
  const verified = replica.verify(token)
  for (let load = 1; load <= 3; load++) {
    await held.has
    await publishCustomer(world, customer.id, [])
    await hear(replica)
    const next = database.hold(LOADER)
    held.release()
    held = next
  }
  expect((await verified).status).toBe(503)
  expect(loads()).toBe(3)
  held.release()
  expect((await replica.verify(token)).status).toBe(200)
})

/** A second access key as created by a rotation: nothing is narrowed, so nothing is published. */
async function rotate(customerId: string) {
  const [row] = await world.admin.query<{ sealed: Uint8Array }>(
    'select sealed_data_key as sealed from assay.customers where id = $1',
    [customerId],
  )
  const { keyRing } = world
  const bytes = open(id => keyRing.masterKey(id), row!.sealed, dataKeyContext(keyRing, customerId))
  const context = {
    installation: keyRing.installationId,
    customer: customerId,
    purpose: 'access',
    version: 2,
  }
  const secret = seal({ id: DATA_KEY_ID, bytes }, randomBytes(64), context)
  const previous = `update assay.signing_keys set state = 'previous' where customer_id = $1 and use = 'access'`
  await world.admin.query(previous, [customerId])
  await world.admin.query(
    `insert into assay.signing_keys (customer_id, use, version, state, alg, sealed_secret)
    values ($1, 'access', 2, 'current', 'HS512', $2)`,
    [customerId, secret],
  )
}

test('a key newer than the record is loaded once, and the older one still verifies', async () => {
  const { customer, token } = await holder()
  const { replica, loads } = await coldReplica()
  expect((await replica.verify(token)).status).toBe(200)
  expect(loads()).toBe(1)
  await rotate(customer.id)
  const { access_token: newer } = await customer.session()
  expect(newer.split('.')[0]).not.toBe(token.split('.')[0])
  for (let i = 0; i < 5; i++) {
    expect((await replica.verify(newer)).status).toBe(200)
    expect((await replica.verify(token)).status).toBe(200)
  }
  expect(loads()).toBe(2)
})

test('concurrent requests for the same customer share one read', async () => {
  const { token } = await holder()
  const { replica, loads } = await coldReplica()
  const answers = await Promise.all(Array.from({ length: 50 }, () => replica.verify(token)))
  expect(answers.map(({ status }) => status)).toEqual(Array(50).fill(200))
  expect(loads()).toBe(1)
})

test('a newer key that many request during an older read is found by all of them', async () => {
  const { customer, token } = await holder()
  const { replica, database, loads } = await coldReplica()
  const held = database.hold(LOADER)
  const older = replica.verify(token)
  await held.has
  await rotate(customer.id)
  const { access_token: newer } = await customer.session()
  const newest = Promise.all(Array.from({ length: 20 }, () => replica.verify(newer)))
  held.release()
  expect((await older).status).toBe(200)
  expect((await newest).map(({ status }) => status)).toEqual(Array(20).fill(200))
  expect(loads()).toBe(2)
})

test('a valid kid whose key no longer exists costs one read, however often it is used', async () => {
  const { customer, token } = await holder()
  const { replica, loads } = await coldReplica()
  expect((await replica.verify(token)).status).toBe(200)
  const name = { customerId: customer.id, use: 'access', version: 99 } as const
  const header = { alg: 'HS512', typ: 'at+jwt', kid: formatKid(world.keyRing.installationKey, name) }
  const [, claims, mac] = token.split('.')
  const gone = `${Buffer.from(JSON.stringify(header)).toString('base64url')}.${claims}.${mac}`
  for (let i = 0; i < 100; i++) expect((await replica.verify(gone)).status).toBe(401)
  expect(loads()).toBe(2)
  expect((await replica.verify(token)).status).toBe(200)
})

test('a row that cannot be decrypted is unknown, and affects nobody else', async () => {
  const [broken, other] = [await holder(), await holder()]
  const { replica } = await coldReplica()
  await world.admin.query(
    `update assay.signing_keys set sealed_secret = set_byte(sealed_secret, 100, get_byte(sealed_secret, 100) # 1)
    where customer_id = $1`,
    [broken.customer.id],
  )
  expect((await replica.verify(broken.token)).status).toBe(503)
  expect((await replica.verify(other.token)).status).toBe(200)
})
