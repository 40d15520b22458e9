import { createHash, randomUUID } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { logIn } from '../support/plant.ts'
import {
  ADMIN_TOKEN,
  ALICE,
  type Answer,
  bearer,
  type Customer,
  makeWorld,
  type Replica,
  type World,
} from '../support/world.ts'

/** Requests that create a credential create it once per Idempotency-Key, and return it again to a retry. */

let world: World
let here: Replica
let there: Replica
let customer: Customer
let neighbour: Customer

beforeAll(async () => {
  world = await makeWorld()
  here = await world.replica()
  there = await world.replica()
  customer = await here.signUp()
  neighbour = await here.signUp()
})
afterAll(() => world.stop())

interface Kind {
  path: () => string
  /** The creator, and another caller that may use the same Idempotency-Key. */
  maker: () => string
  other: () => { path: string; token: string }
  credential: (json: Answer['json']) => string
  /** The endpoint that the credential opens. */
  use: (credential: string) => Promise<Answer>
  /** The request. Names of services are unique: theirs are different for each `seed`. */
  request: (body: { name?: string; scopes?: string[] }, seed: string) => object
  table: string
  event: string
}

const anApiKey = {
  request: (body: object) => body,
  credential: (json: Answer['json']) => json.api_key as string,
  use: (key: string) => there.postJson('/issue', {}, bearer(key)),
  table: 'api_keys',
  event: 'api_key.created',
}
const keysOf = ({ id }: Customer) => `/admin/customers/${id}/keys`

const KINDS: Record<string, Kind> = {
  "a customer's own API key": {
    ...anApiKey,
    path: () => '/api/keys',
    maker: () => customer.accessToken,
    other: () => ({ path: '/api/keys', token: neighbour.accessToken }),
  },
  'an API key that an operator makes': {
    ...anApiKey,
    path: () => keysOf(customer),
    maker: () => ALICE,
    other: () => ({ path: keysOf(neighbour), token: ALICE }),
  },
  'a service': {
    path: () => '/admin/services',
    maker: () => ALICE,
    other: () => ({ path: '/admin/services', token: ADMIN_TOKEN }),
    request: ({ name = 'unnamed', ...body }, seed) => ({
      name: `${name}-${createHash('sha256').update(seed).digest('hex').slice(0, 16)}`,
      may: ['introspect'],
      ...body,
    }),
    credential: json => json.credential,
    use: credential => there.postForm('/introspect', { token: 'x' }, bearer(credential)),
    table: 'services',
    event: 'service.created',
  },
}

/** Without the id, which is not secret. */
const secretOf = (credential: string) => credential.split('_')[3]

const BODY = { name: 'billing', scopes: ['read', 'write'] }

describe.each(Object.entries(KINDS))('%s', (_, kind) => {
  const { credential, use, table, event } = kind
  const make = (key: string | undefined, body: object = BODY, replica = here) =>
    replica.postJson(kind.path(), kind.request(body, key ?? randomUUID()), {
      ...bearer(kind.maker()),
      ...(key !== undefined && { 'Idempotency-Key': key }),
    })
  const remove = ({ id }: Answer['json']) =>
    here.request(`${kind.path()}/${id}?wait=all`, { method: 'DELETE', headers: bearer(kind.maker()) })

  /** The number of items by the table, by the audit, and by the customer's counter. */
  async function counted() {
    const [row] = await world.admin.query<{ made: number; audited: number; keys: number; counted: number }>(
      `select (select count(*)::int from assay.${table}) as made,
        (select count(*)::int from assay.audit_events where type = $1) as audited,
        (select count(*)::int from assay.api_keys) as keys,
        (select sum(api_keys)::int from assay.customers) as counted`,
      [event],
    )
    expect(row!.counted).toBe(row!.keys)
    return row!
  }

  async function growth(act: () => Promise<unknown>) {
    const before = await counted()
    await act()
    const after = await counted()
    return { made: after.made - before.made, audited: after.audited - before.audited }
  }

  test('is returned again to a retry on any replica, with the same credential', async () => {
    const key = randomUUID()
    const grown = await growth(async () => {
      const first = await make(key)
      expect(first.status).toBe(201)
      expect((await use(credential(first.json))).status).toBe(200)
      for (const replica of [here, there]) {
        const retry = await make(key, BODY, replica)
        expect([retry.status, retry.json]).toEqual([201, first.json])
        expect(retry.headers.get('cache-control')).toBe('no-store')
      }
    })
    expect(grown).toEqual({ made: 1, audited: 1 })
  })

  test('is created again without an Idempotency-Key, or under another', async () => {
    const answers = [await make(undefined), await make(undefined), await make(randomUUID())]
    expect(new Set(answers.map(({ json }) => json.id)).size).toBe(3)
    expect(new Set(answers.map(({ json }) => credential(json))).size).toBe(3)
  })

  test('is not created by a different request under the same key', async () => {
    const key = randomUUID()
    const { json } = await make(key)
    const bodies = [{}, { ...BODY, name: 'other' }, { ...BODY, scopes: ['read'] }]
    const grown = await growth(async () => {
      for (const body of bodies) {
        const refused = await make(key, body)
        expect(refused).toMatchObject({ status: 400, json: { error: 'invalid_request' } })
        expect(refused.json.detail).toContain('use a new key')
        expect(refused.text).not.toContain(json.id)
      }
    })
    expect(grown).toEqual({ made: 0, audited: 0 })
    expect((await make(key)).json.id).toBe(json.id)
  })

  test('is created once by twenty concurrent requests', async () => {
    for (let round = 0; round < 3; round++) {
      const key = randomUUID()
      let answers: Answer[] = []
      const grown = await growth(async () => {
        answers = await Promise.all(
          Array.from({ length: 20 }, (_, n) => make(key, BODY, n % 2 ? there : here)),
        )
      })
      expect(answers.map(({ status }) => status)).toEqual(Array(20).fill(201))
      expect(new Set(answers.map(({ text }) => text)).size).toBe(1)
      expect(grown).toEqual({ made: 1, audited: 1 })
    }
  })

  test('is created once by several concurrent requests under one key', async () => {
    const key = randomUUID()
    let answers: Answer[] = []
    const grown = await growth(async () => {
      answers = await Promise.all(
        Array.from({ length: 12 }, (_, n) => make(key, { name: `n${n % 3}` }, n % 2 ? there : here)),
      )
    })
    expect(grown).toEqual({ made: 1, audited: 1 })
    const statuses = answers.map(({ status }) => status)
    expect(statuses.filter(status => status === 201)).toHaveLength(4)
    expect(statuses.filter(status => status === 400)).toHaveLength(8)
  })

  test('belongs to its creator: another may use the same key', async () => {
    const key = randomUUID()
    const own = await make(key)
    const { path, token } = kind.other()
    const theirs = await here.postJson(path, kind.request(BODY, `${key} of another`), {
      ...bearer(token),
      'Idempotency-Key': key,
    })
    expect(theirs.status).toBe(201)
    expect(theirs.json.id).not.toBe(own.json.id)
    expect(credential(theirs.json)).not.toBe(credential(own.json))
    expect((await make(key)).json.id).toBe(own.json.id)
  })

  test('that was deleted is not created again: a late retry gets a different one', async () => {
    const key = randomUUID()
    const { json } = await make(key)
    expect((await remove(json)).status).toBe(204)
    const late = await make(key)
    expect(late.status).toBe(201)
    expect(late.json.id).not.toBe(json.id)
    expect(secretOf(credential(late.json))).not.toBe(secretOf(credential(json)))
    expect((await use(credential(json))).status).toBe(401)
    expect((await use(credential(late.json))).status).toBe(200)
  })

  test('requires an Idempotency-Key of 1 to 255 visible characters', async () => {
    for (const key of ['', 'a b', 'x'.repeat(256)])
      expect(await make(key)).toMatchObject({ status: 400, json: { error: 'invalid_request' } })
    expect((await make(`${randomUUID()}${'x'.repeat(219)}`)).status).toBe(201)
  })

  test('leaves neither its Idempotency-Key nor its credential in the database or the log', async () => {
    const key = `canary-${randomUUID()}`
    const { json } = await make(key, { name: 'shown' })
    await make(key, { name: 'shown' })
    const rows = await world.admin.query<{ row: string }>(`select t::text as row from assay.${table} t`)
    const kept = rows.map(({ row }) => row).join('\n') + here.lines.join('\n')
    expect(kept).toContain(json.id)
    for (const secret of [key, credential(json)])
      for (const encoding of ['utf8', 'hex', 'base64'] as const)
        expect(kept).not.toContain(Buffer.from(secret).toString(encoding))
  })
})

test("an operator's Idempotency-Key does not return a key that the customer created under it, nor vice versa", async () => {
  const key = { 'Idempotency-Key': randomUUID() }
  const own = await here.postJson('/api/keys', BODY, { ...bearer(customer.accessToken), ...key })
  const made = await here.postJson(keysOf(customer), BODY, { ...bearer(ALICE), ...key })
  const byOther = await here.postJson(keysOf(customer), BODY, { ...bearer(ADMIN_TOKEN), ...key })
  expect(new Set([own, made, byOther].map(({ json }) => json.api_key)).size).toBe(3)
})

test('a customer that logs in again finds the key it created under its Idempotency-Key', async () => {
  const key = { 'Idempotency-Key': randomUUID() }
  const first = await here.postJson('/api/keys', BODY, { ...bearer(customer.accessToken), ...key })
  const { access_token } = await logIn(here, customer)
  const again = await here.postJson('/api/keys', BODY, { ...bearer(access_token), ...key })
  expect(again.json).toEqual(first.json)
})

test('the expiry of a key is part of the request, and is returned unchanged', async () => {
  const key = { 'Idempotency-Key': randomUUID(), ...bearer(customer.accessToken) }
  const first = await here.postJson('/api/keys', { expires_in: 3_600 }, key)
  expect((await here.postJson('/api/keys', { expires_in: 3_600 }, key)).json).toEqual(first.json)
  expect((await here.postJson('/api/keys', { expires_in: 7_200 }, key)).status).toBe(400)
  expect((await here.postJson('/api/keys', {}, key)).status).toBe(400)
})

test('a customer at its limit of keys still gets the one it created', async () => {
  const full = await here.signUp()
  const key = { 'Idempotency-Key': randomUUID(), ...bearer(full.accessToken) }
  const first = await here.postJson('/api/keys', BODY, key)
  await world.admin.query('update assay.customers set api_keys = 100 where id = $1', [full.id])
  expect((await here.postJson('/api/keys', BODY, key)).json).toEqual(first.json)
  const more = { ...key, 'Idempotency-Key': randomUUID() }
  expect((await here.postJson('/api/keys', BODY, more)).json.error).toBe('conflict')
  await world.admin.query('update assay.customers set api_keys = 2 where id = $1', [full.id])
})

test('a service that was changed since is told as it is, and one whose credential was rotated is not', async () => {
  const headers = { ...bearer(ALICE), 'Idempotency-Key': randomUUID() }
  const make = () => here.postJson('/admin/services', { name: 'relay', may: ['introspect'] }, headers)
  const { id, credential } = (await make()).json
  const changed = { method: 'PUT', headers: { ...bearer(ALICE), 'Content-Type': 'application/json' } }
  const body = JSON.stringify({ may: ['introspect'], scopes: ['read'] })
  await here.request(`/admin/services/${id}`, { ...changed, body })
  expect((await make()).json).toMatchObject({ id, credential, scopes: ['read'] })
  await here.postJson(`/admin/services/${id}/rotate`, {}, bearer(ALICE))
  expect(await make()).toMatchObject({ status: 400, json: { error: 'invalid_request' } })
})
