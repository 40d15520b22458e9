import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { newCredential, newServiceId } from '../../server/crypto/credentials.ts'
import { hear, holding, named, replicaOn } from '../support/holding.ts'
import { ALICE, basic, bearer, type Customer, makeWorld, type Replica, type World } from '../support/world.ts'

/** Services that an operator creates: their credentials, their limits, and when these end. */

let world: World
let assay: Replica
let there: Replica
let one: Customer
let two: Customer

beforeAll(async () => {
  world = await makeWorld()
  assay = await world.replica()
  there = await world.replica()
  one = await assay.signUp()
  two = await assay.signUp()
})
afterAll(() => world.stop())

interface Made {
  id: string
  name: string
  credential: string
}

const call = (method: string, at: string, body?: object) =>
  assay.request(at, {
    method,
    headers: { ...bearer(ALICE), ...(body && { 'Content-Type': 'application/json' }) },
    ...(body && { body: JSON.stringify(body) }),
  })
const newName = () => `gateway-${randomUUID().slice(0, 8)}`
const create = async (limits: object = {}) =>
  (await call('POST', '/admin/services', { name: newName(), may: ['introspect'], ...limits })).json as Made

/** Active, inactive or refused, by Bearer, by Basic and in the form, which must agree. */
async function asked(replica: Replica, { id, credential }: Pick<Made, 'id' | 'credential'>, token: string) {
  const answers = [
    await replica.postForm('/introspect', { token }, bearer(credential)),
    await replica.introspect(token, basic(id, credential)),
    await replica.postForm('/introspect', { token, client_id: id, client_secret: credential }),
  ].map(({ status, json }) => (status === 200 ? json.active : status))
  expect(new Set(answers).size).toBe(1)
  return answers[0]
}

test('one asks about every token, by its credential, whichever way it comes', async () => {
  const service = await create()
  expect(service.credential).toMatch(/^assay_sv_/)
  for (const customer of [one, two]) {
    const { access_token } = await customer.session()
    for (const replica of [assay, there]) expect(await asked(replica, service, access_token)).toBe(true)
  }
  const other = await create()
  expect((await assay.introspect('x', basic(other.id, service.credential))).status).toBe(401)
  expect((await assay.postForm('/issue', {}, bearer(service.credential))).status).toBe(400)
})

test('a customer or scope that is repeated in its limits counts once', async () => {
  const limits = { may: ['introspect'], customers: [one.id, two.id, one.id], scopes: ['read', 'read'] }
  const service = await create(limits)
  expect(service).toMatchObject({ customers: [one.id, two.id], scopes: ['read'] })
  const changed = await call('PUT', `/admin/services/${service.id}`, limits)
  expect(changed.json).toMatchObject({ customers: [one.id, two.id], scopes: ['read'] })
})

test('one that is limited knows of no other customer, not even why', async () => {
  const service = await create({ customers: [one.id] })
  const { access_token: mine } = await one.session()
  const { access_token: others } = await two.session()
  expect(await asked(assay, service, mine)).toBe(true)
  expect(await asked(assay, service, others)).toBe(false)
  const explain = async (token: string) =>
    (await assay.postForm('/introspect/explain', { token }, bearer(service.credential))).json
  expect(await explain(mine)).toMatchObject({ active: true })
  const told = await explain(others)
  expect(told).toMatchObject({ active: false, reason: 'key_unknown' })
  expect(told.key ?? told.token ?? told.session).toBeUndefined()
})

test('one that is limited to scopes knows of tokens that have one of them', async () => {
  const service = await create({ scopes: ['read', 'admin'] })
  const token = async (scope: string) => (await one.issue({ scope })).json.access_token
  expect(await asked(assay, service, await token('read write'))).toBe(true)
  expect(await asked(assay, service, await token('write'))).toBe(false)
  const form = { token: await token('write') }
  const why = await assay.postForm('/introspect/explain', form, bearer(service.credential))
  expect(why.json).toMatchObject({ active: false, reason: 'key_unknown' })
  expect(why.json.token).toBeUndefined()
})

test('its limits hold everywhere once wait=all has answered', async () => {
  const service = await create()
  const { access_token } = await two.session()
  for (const replica of [assay, there]) expect(await asked(replica, service, access_token)).toBe(true)
  const changed = await call('PUT', `/admin/services/${service.id}?wait=all`, {
    may: ['introspect'],
    customers: [one.id],
  })
  expect(changed).toMatchObject({
    status: 200,
    json: { id: service.id, name: service.name, customers: [one.id] },
  })
  for (const replica of [assay, there]) expect(await asked(replica, service, access_token)).toBe(false)
  await call('PUT', `/admin/services/${service.id}?wait=all`, { may: ['introspect'] })
  for (const replica of [assay, there]) expect(await asked(replica, service, access_token)).toBe(true)
})

test('a rotated credential goes on for its overlap, and no longer', async () => {
  const service = await create()
  const { access_token } = await one.session({ expires_in: 900 })
  expect(await asked(there, service, access_token)).toBe(true)
  const { json } = await call('POST', `/admin/services/${service.id}/rotate`, { overlap: 60 })
  await hear(there)
  for (const replica of [assay, there])
    for (const credential of [service.credential, json.credential])
      expect(await asked(replica, { id: service.id, credential }, access_token)).toBe(true)
  await world.advance(61_000)
  for (const replica of [assay, there]) {
    expect(await asked(replica, service, access_token)).toBe(401)
    expect(await asked(replica, json, access_token)).toBe(true)
  }
  const leaked = await call('POST', `/admin/services/${service.id}/rotate`, { overlap: 0 })
  await hear(there)
  for (const replica of [assay, there]) {
    expect(await asked(replica, json, access_token)).toBe(401)
    expect(await asked(replica, leaked.json, access_token)).toBe(true)
  }
})

describe('while a rotated credential goes on', () => {
  const rotate = (id: string, body: object = {}) => call('POST', `/admin/services/${id}/rotate`, body)

  /** Whether each of the credentials is valid, on both replicas. */
  async function good(id: string, credentials: string[]) {
    await hear(there)
    const { access_token } = await one.session({ expires_in: 900 })
    const answers: boolean[] = []
    for (const credential of credentials) {
      const [at, elsewhere] = [
        await asked(assay, { id, credential }, access_token),
        await asked(there, { id, credential }, access_token),
      ]
      expect(at).toBe(elsewhere)
      answers.push(at === true)
    }
    return answers
  }

  /** A service whose second credential has taken the place of its first, which is good for a minute. */
  async function rotated() {
    const { id, credential: first } = await create()
    const { json } = await rotate(id, { overlap: 60 })
    return { id, first, second: json.credential as string, until: json.previous_until as string }
  }

  test('it is not rotated again unless the request says which one ends; the answer says until when', async () => {
    const { id, first, second, until } = await rotated()
    for (const body of [{}, { overlap: 60 }]) {
      const refused = await rotate(id, body)
      expect(refused).toMatchObject({ status: 409, json: { error: 'conflict', previous_until: until } })
      expect(refused.json.detail).toContain(until)
      expect(await good(id, [first, second])).toEqual([true, true])
    }
    await world.advance(61_000)
    const third = (await rotate(id, { overlap: 60 })).json
    expect(await good(id, [first, second, third.credential])).toEqual([false, true, true])
  })

  test('the older one ends on request, and the newer one remains valid for the overlap', async () => {
    const { id, first, second } = await rotated()
    const { json } = await rotate(id, { end: 'previous', overlap: 120 })
    expect(await good(id, [first, second, json.credential])).toEqual([false, true, true])
    await world.advance(61_000)
    expect(await good(id, [second, json.credential])).toEqual([true, true])
    await world.advance(60_000)
    expect(await good(id, [second, json.credential])).toEqual([false, true])
  })

  test('the newer one, whose answer was lost, ends on request, and the older one keeps its time', async () => {
    const { id, first, second, until } = await rotated()
    const { json } = await rotate(id, { end: 'current' })
    expect(json.previous_until).toBe(until)
    expect(await good(id, [first, second, json.credential])).toEqual([true, false, true])
    await world.advance(61_000)
    expect(await good(id, [first, json.credential])).toEqual([false, true])
  })

  test('both end after a leak', async () => {
    const { id, first, second } = await rotated()
    const { json } = await rotate(id, { overlap: 0 })
    expect(json.previous_until).toBeUndefined()
    expect(await good(id, [first, second, json.credential])).toEqual([false, false, true])
  })

  test('of two concurrent rotations one succeeds, and the credential in use remains valid', async () => {
    const { id, credential } = await create()
    const answers = await Promise.all(Array.from({ length: 6 }, () => rotate(id, { overlap: 60 })))
    const made = answers.filter(({ status }) => status === 200)
    expect(made).toHaveLength(1)
    expect(answers.filter(({ status }) => status === 409)).toHaveLength(5)
    expect(await good(id, [credential, made[0]!.json.credential])).toEqual([true, true])
  })

  test('contradictory requests are refused', async () => {
    const { id, credential } = await create()
    const current = await rotate(id, { end: 'current' })
    expect(current).toMatchObject({ status: 409, json: { error: 'conflict' } })
    expect(current.json.previous_until).toBeUndefined()
    for (const body of [
      { end: 'both' },
      { end: 'current', overlap: 60 },
      { overlap: -1 },
      { ends: 'current' },
    ])
      expect(await rotate(id, body)).toMatchObject({ status: 400, json: { error: 'invalid_request' } })
    expect(await good(id, [credential])).toEqual([true])
    expect((await rotate(newServiceId(world.keyRing.installationKey), {})).status).toBe(404)
    expect((await rotate(id, { end: 'previous', overlap: 60 })).status).toBe(200)
  })
})

test('one that is deleted is refused everywhere', async () => {
  const service = await create()
  const { access_token } = await one.session()
  for (const replica of [assay, there]) expect(await asked(replica, service, access_token)).toBe(true)
  expect((await call('DELETE', `/admin/services/${service.id}?wait=all`)).status).toBe(204)
  for (const replica of [assay, there]) expect(await asked(replica, service, access_token)).toBe(401)
  expect((await call('DELETE', `/admin/services/${service.id}`)).status).toBe(404)
  expect((await call('PUT', `/admin/services/${service.id}`, { may: ['introspect'] })).status).toBe(404)
})

test('all of it is in the audit, with its actor', async () => {
  const { id } = await create()
  await call('PUT', `/admin/services/${id}`, { may: ['revoke'] })
  await call('POST', `/admin/services/${id}/rotate`, {})
  await call('DELETE', `/admin/services/${id}`)
  const { json } = await call('GET', '/admin/audit?operator=alice&limit=4')
  const types = ['service.deleted', 'service.rotated', 'service.changed', 'service.created']
  expect(json.events.map(({ type }: { type: string }) => type)).toEqual(types)
  for (const event of json.events) expect(event.detail).toMatchObject({ service_id: id })
  expect(
    (await call('GET', '/admin/services')).json.services.map((service: Made) => service.id),
  ).not.toContain(id)
})

test('made-up ids cost no statement, and a deleted one costs one', async () => {
  const link = holding(world.db)
  const replica = await replicaOn(world, link.db)
  const loads = () => link.asked(named('findServiceRecord'))
  const ask = (credential: string) => replica.post('/introspect', { token: 'x' }, bearer(credential))
  const id = newServiceId(world.keyRing.installationKey)
  const madeUp = id.replace(/.$/, last => (last === 'a' ? 'b' : 'a'))
  for (let i = 0; i < 5; i++) expect((await ask(newCredential('assay_sv', madeUp).text)).status).toBe(401)
  expect(loads()).toBe(0)
  for (let i = 0; i < 5; i++) expect((await ask(newCredential('assay_sv', id).text)).status).toBe(401)
  expect(loads()).toBe(1)
})
