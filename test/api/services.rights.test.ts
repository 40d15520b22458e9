import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Right } from '../../server/clients/rights.ts'
import type { Limit } from '../../server/lib/rate-limiter.ts'
import {
  ADMIN_TOKEN,
  ALICE,
  type Answer,
  basic,
  bearer,
  type Customer,
  claimsOf,
  makeWorld,
  type Replica,
  type World,
} from '../support/world.ts'

/** Each right of a service, and what the service can do for its customers with it. */

let world: World
let assay: Replica
let there: Replica
let one: Customer
let two: Customer

beforeAll(async () => {
  world = await makeWorld()
  assay = await world.replica()
  there = await world.replica()
  ;[one, two] = [await assay.signUp(), await assay.signUp()]
})
afterAll(() => world.stop())

interface Service {
  id: string
  name: string
  credential: string
}

async function create(may: Right[], limits: object = {}): Promise<Service> {
  const body = { name: `s-${randomUUID()}`, may, ...limits }
  const { status, json } = await assay.postJson('/admin/services', body, bearer(ADMIN_TOKEN))
  expect(status).toBe(201)
  return json
}

const change = ({ id }: Service, body: object) =>
  assay.request(`/admin/services/${id}?wait=all`, {
    method: 'PUT',
    headers: { ...bearer(ADMIN_TOKEN), 'Content-Type': 'application/json' },
    body: JSON.stringify(body),
  })

const issueAs = (service: Service, body: object, headers: Record<string, string> = {}, replica = assay) =>
  replica.postJson('/issue', body, { ...bearer(service.credential), ...headers })

/** The newest events of the customer. */
const eventsOf = async ({ id }: Pick<Customer, 'id'>) =>
  (await assay.get(`/admin/customers/${id}/audit`, ADMIN_TOKEN)).json.events

const invalid = (about: string) => ({
  status: 400,
  json: { error: 'invalid_request', error_description: expect.stringContaining(about) },
})

describe('issue', () => {
  test('makes tokens and sessions of any customer that is named, and the audit names the service', async () => {
    const service = await create(['issue'])
    for (const customer of [one, two]) {
      const { json } = await issueAs(service, {
        customer: customer.id,
        subject: 'user-7',
        scope: 'read',
        refresh: true,
      })
      expect(claimsOf(json.access_token)).toMatchObject({
        client_id: customer.id,
        sub: 'user-7',
        scope: 'read',
      })
      expect((await there.verify(json.access_token)).status).toBe(200)
      expect((await assay.refresh(json.refresh_token)).status).toBe(200)
      const [, event] = await eventsOf(customer)
      expect(event).toMatchObject({
        type: 'token.issued',
        actor: `service:${service.name}`,
        subject: 'user-7',
      })
    }
  })

  test('is the client_credentials grant too, for the customer in the form', async () => {
    const service = await create(['issue'])
    const form = { grant_type: 'client_credentials', customer: one.id }
    const inForm = { client_id: service.id, client_secret: service.credential }
    const answers = [
      await assay.postForm('/token', form, bearer(service.credential)),
      await assay.postForm('/token', form, { Authorization: basic(service.id, service.credential) }),
      await assay.postForm('/token', { ...form, ...inForm }),
    ]
    for (const { json } of answers)
      expect(claimsOf(json.access_token)).toMatchObject({ client_id: one.id, sub: one.id })
    const { customer: _, ...unnamed } = { ...form }
    expect(await assay.postForm('/token', unnamed, bearer(service.credential))).toMatchObject(
      invalid('customer is missing'),
    )
  })

  test('needs a customer that exists and is active', async () => {
    const service = await create(['issue'])
    expect(await issueAs(service, {})).toMatchObject(invalid('customer is missing'))
    for (const customer of ['', 'x', 'a'.repeat(16), `${one.id} `, one.id.toUpperCase(), 'a'.repeat(9_000)])
      expect(await issueAs(service, { customer })).toMatchObject(invalid('no such customer; check the id'))
    expect((await issueAs(service, { customer: [one.id] })).status).toBe(400)
    const three = await assay.signUp()
    await assay.postJson(`/admin/customers/${three.id}/disable?wait=all`, {}, bearer(ADMIN_TOKEN))
    for (const replica of [assay, there])
      expect(await issueAs(service, { customer: three.id }, {}, replica)).toMatchObject({
        status: 403,
        json: { error: 'customer_disabled' },
      })
    await assay.request(`/admin/customers/${three.id}?wait=all`, {
      method: 'DELETE',
      headers: bearer(ADMIN_TOKEN),
    })
    for (const replica of [assay, there])
      expect(await issueAs(service, { customer: three.id }, {}, replica)).toMatchObject(
        invalid('no such customer; check the id'),
      )
  })

  test('writes nothing for a customer whose secrets cannot be decrypted: the answer is 503', async () => {
    const [service, broken] = [await create(['issue']), await assay.signUp()]
    await world.admin.query(
      `update assay.customers set sealed_data_key = (
        select sealed_data_key from assay.customers where id = $2) where id = $1`,
      [broken.id, one.id],
    )
    const replica = await world.replica()
    for (let i = 0; i < 2; i++)
      expect(await issueAs(service, { customer: broken.id }, {}, replica)).toMatchObject({
        status: 503,
        json: { error: 'temporarily_unavailable' },
      })
    const events = await eventsOf(broken)
    expect(events.map(({ actor }: { actor: string }) => actor)).not.toContain(`service:${service.name}`)
    await replica.stop()
  })

  test('grants the scopes that the service is limited to, and never one of our own', async () => {
    const [limited, free] = [await create(['issue'], { scopes: ['read', 'write'] }), await create(['issue'])]
    const scopeFor = async (service: Service, scope?: string) => {
      const { status, json } = await issueAs(service, { customer: one.id, scope })
      return status === 200 ? (json.scope ?? '') : json.error
    }
    expect(await scopeFor(limited)).toBe('read write')
    expect(await scopeFor(limited, 'read')).toBe('read')
    expect(await scopeFor(limited, 'read admin')).toBe('invalid_scope')
    expect(await scopeFor(free)).toBe('')
    expect(await scopeFor(free, 'admin')).toBe('admin')
    for (const service of [limited, free])
      for (const scope of ['assay:account', 'assay:sessions', '*'])
        expect(await scopeFor(service, scope)).toBe('invalid_scope')
    const wildcard = { name: 'wildcard', may: ['issue'], scopes: ['*'] }
    expect((await assay.postJson('/admin/services', wildcard, bearer(ADMIN_TOKEN))).status).toBe(400)
  })

  test('counts on the quota of the customer, as its own API keys do', async () => {
    const customer = await assay.signUp()
    await assay.setPolicy(customer.id, { tokens_per_minute: 3 })
    const service = await create(['issue'])
    await customer.issue()
    await issueAs(service, { customer: customer.id })
    await issueAs(service, { customer: customer.id })
    expect((await issueAs(service, { customer: customer.id })).status).toBe(429)
    expect((await customer.issue()).status).toBe(429)
    expect((await issueAs(service, { customer: one.id })).status).toBe(200)
  })

  test('starts one session under an Idempotency-Key, which another credential of the customer cannot learn', async () => {
    const service = await create(['issue'])
    const key = { 'Idempotency-Key': randomUUID() }
    const body = { customer: one.id, refresh: true }
    const [first, again] = [await issueAs(service, body, key), await issueAs(service, body, key, there)]
    expect(again.json.session_id).toBe(first.json.session_id)
    for (const refused of [
      await one.issue({ refresh: true }, key),
      await issueAs(await create(['issue']), body, key),
    ])
      expect(refused).toMatchObject({ status: 400, json: { error: 'invalid_request' } })
    expect((await issueAs(service, { ...body, customer: two.id }, key)).json.session_id).not.toBe(
      first.json.session_id,
    )
  })

  test('by an API key is for its own customer, whether that is named or not', async () => {
    expect((await one.issue({ customer: one.id })).status).toBe(200)
    for (const customer of [two.id, 'a'.repeat(16), ''])
      expect(await one.issue({ customer })).toMatchObject(
        invalid("send that customer's id, or omit customer"),
      )
    const { access_token: token, refresh_token } = await one.session()
    const forms: [string, Record<string, string>][] = [
      ['/token', { grant_type: 'client_credentials' }],
      ['/token', { grant_type: 'refresh_token', refresh_token }],
      ['/refresh', { refresh_token }],
      ['/introspect', { token }],
      ['/revoke', { token }],
    ]
    for (const [path, form] of forms) {
      const refused = await assay.postForm(path, { ...form, customer: two.id }, bearer(one.apiKey))
      expect([path, refused.status, refused.json.error]).toEqual([path, 400, 'invalid_request'])
    }
    for (const [path, form] of forms) {
      const { status } = await assay.postForm(path, { ...form, customer: one.id }, bearer(one.apiKey))
      expect([path, status]).toEqual([path, 200])
    }
  })
})

describe('refresh', () => {
  test('refreshes sessions of every customer, and the audit names the service', async () => {
    const service = await create(['refresh'])
    for (const customer of [one, two]) {
      const { refresh_token } = await customer.session()
      const { status, json } = await assay.refresh(refresh_token, bearer(service.credential))
      expect([status, claimsOf(json.access_token).client_id]).toEqual([200, customer.id])
      expect((await eventsOf(customer))[0]).toMatchObject({
        type: 'session.refreshed',
        actor: `service:${service.name}`,
      })
    }
  })

  test('is an authenticated client, so that a session with a policy of reusable tokens keeps its token', async () => {
    const customer = await assay.signUp()
    await assay.setPolicy(customer.id, { refresh_policy: 'reusable' })
    const { refresh_token } = await customer.session()
    const service = await create(['refresh'])
    expect((await assay.refresh(refresh_token, bearer(service.credential))).json.refresh_token).toBe(
      refresh_token,
    )
    expect((await assay.refresh(refresh_token)).json.refresh_token).not.toBe(refresh_token)
  })

  test('may name the customer, if it is that of the token', async () => {
    const service = await create(['refresh', 'introspect', 'revoke'])
    const { access_token: token, refresh_token } = await one.session()
    const forms: [string, Record<string, string>][] = [
      ['/refresh', { refresh_token }],
      ['/introspect', { token }],
      ['/introspect/explain', { token }],
      ['/revoke', { token }],
      ['/revoke', { token: refresh_token }],
    ]
    for (const [path, form] of forms) {
      const sent = (customer: string) =>
        assay.postForm(path, { ...form, customer }, bearer(service.credential))
      expect(await sent(two.id)).toMatchObject(invalid("send that customer's id, or omit customer"))
    }
    expect((await assay.verify(token)).status).toBe(200)
    const json = { refresh_token, customer: one.id }
    expect((await assay.postJson('/refresh', json, bearer(service.credential))).status).toBe(200)
  })
})

test('revoke ends tokens and sessions of every customer, and the audit names the service', async () => {
  const service = await create(['revoke'])
  for (const customer of [one, two]) {
    const session = await customer.session()
    const { access_token } = (await customer.issue()).json
    for (const token of [access_token, session.refresh_token]) {
      expect(
        (await assay.postForm('/revoke', { token, wait: 'all' }, bearer(service.credential))).status,
      ).toBe(200)
      expect((await eventsOf(customer))[0].actor).toBe(`service:${service.name}`)
    }
    for (const token of [access_token, session.access_token])
      expect((await there.verify(token)).status).toBe(401)
  }
})

const path = (customer: Pick<Customer, 'id'>, rest: string) => `/admin/customers/${customer.id}/${rest}`

test('sessions lists and ends sessions, revokes a subject, and logs out a whole customer', async () => {
  const service = await create(['sessions'])
  const authorization = bearer(service.credential)
  const [first, second] = [await one.session({ subject: 'user-8' }), await one.session({ subject: 'user-8' })]
  const { json } = await assay.get(path(one, 'sessions?subject=user-8'), service.credential)
  expect(json.sessions.map(({ id }: { id: string }) => id)).toEqual([second.session_id, first.session_id])
  const ended = await assay.request(path(one, `sessions/${first.session_id}?wait=all`), {
    method: 'DELETE',
    headers: authorization,
  })
  expect(ended.status).toBe(204)
  expect((await there.verify(first.access_token)).status).toBe(401)
  expect((await there.verify(second.access_token)).status).toBe(200)
  const revoked = await assay.postJson(
    path(one, 'subjects/revoke?wait=all'),
    { subject: 'user-8' },
    authorization,
  )
  expect(revoked.status).toBe(204)
  expect((await there.verify(second.access_token)).status).toBe(401)
  const [subjectEvent, endEvent] = await eventsOf(one)
  expect([subjectEvent.type, endEvent.type]).toEqual(['subject.revoked', 'session.revoked'])
  for (const { actor } of [subjectEvent, endEvent]) expect(actor).toBe(`service:${service.name}`)
  const customer = await assay.signUp()
  const { access_token } = await customer.session()
  expect((await assay.postJson(path(customer, 'revoke?wait=all'), {}, authorization)).status).toBe(204)
  expect((await there.verify(access_token)).status).toBe(401)
})

test('rotate lists, rotates and retires the secrets of a customer', async () => {
  const customer = await assay.signUp()
  const service = await create(['rotate'])
  const authorization = bearer(service.credential)
  const { access_token } = await customer.session()
  const rotated = await assay.postJson(
    path(customer, 'secrets/rotate'),
    { use: 'access', now: true },
    authorization,
  )
  expect(rotated.json.versions).toEqual([{ use: 'access', version: 2 }])
  expect((await there.verify(access_token)).status).toBe(401)
  expect((await assay.get(path(customer, 'secrets'), service.credential)).json.secrets).toHaveLength(3)
  const current = { use: 'access', version: 2 }
  expect((await assay.postJson(path(customer, 'secrets/retire'), current, authorization)).status).toBe(409)
  const [event] = await eventsOf(customer)
  expect(event).toMatchObject({ type: 'secret.rotated', actor: `service:${service.name}` })
})

test('disable disables a customer everywhere, and enables it again', async () => {
  const customer = await assay.signUp()
  const service = await create(['disable'])
  const set = (state: string) =>
    assay.postJson(path(customer, `${state}?wait=all`), {}, bearer(service.credential))
  expect((await set('disable')).json.state).toBe('disabled')
  expect((await there.postJson('/issue', {}, bearer(customer.apiKey))).status).toBe(403)
  expect((await set('enable')).json.state).toBe('active')
  expect((await there.postJson('/issue', {}, bearer(customer.apiKey))).status).toBe(200)
  const events = await eventsOf(customer)
  expect(events.filter(({ actor }: { actor: string }) => actor === `service:${service.name}`)).toHaveLength(2)
})

describe('create', () => {
  const createCustomer = (service: Service, body: object, headers: Record<string, string> = {}) =>
    assay.postJson('/admin/customers', body, { ...bearer(service.credential), ...headers })

  test('creates a customer without an API key, which the service then serves', async () => {
    const service = await create(['create', 'issue'])
    const { status, json } = await createCustomer(service, {
      email: `${randomUUID()}@example.com`,
      name: 'Shop',
    })
    expect([status, Object.keys(json)]).toEqual([201, ['customer']])
    const { id } = json.customer
    expect((await assay.get(`/admin/customers/${id}/keys`, ADMIN_TOKEN)).json.keys).toEqual([])
    expect((await issueAs(service, { customer: id })).status).toBe(200)
    const events = await eventsOf({ id })
    expect(events.at(-1)).toMatchObject({
      type: 'customer.created',
      actor: `service:${service.name}`,
      detail: {},
    })
    expect((await assay.postJson(`/admin/customers/${id}/keys`, {}, bearer(ADMIN_TOKEN))).status).toBe(201)
    const [row] = await world.admin.query<{ counted: number }>(
      'select api_keys as counted from assay.customers where id = $1',
      [id],
    )
    expect(row!.counted).toBe(1)
  })

  test('creates one customer under one Idempotency-Key', async () => {
    const service = await create(['create'])
    const key = { 'Idempotency-Key': randomUUID() }
    const body = { email: `${randomUUID()}@example.com`, name: 'Shop', password: 'correct horse battery' }
    const answers = await Promise.all(Array.from({ length: 5 }, () => createCustomer(service, body, key)))
    expect(new Set(answers.map(({ status, text }) => `${status} ${text}`)).size).toBe(1)
    expect(answers[0]!.status).toBe(201)
    for (const other of [
      { name: 'Other' },
      { email: `${randomUUID()}@example.com` },
      { password: 'another battery' },
    ])
      expect(await createCustomer(service, { ...body, ...other }, key)).toMatchObject({
        status: 400,
        json: { error: 'invalid_request' },
      })
    expect((await createCustomer(service, body)).status).toBe(409)
    expect((await createCustomer(await create(['create']), body, key)).status).toBe(409)
  })
})

describe('the writes of a service are limited', () => {
  /** Uses up a limit, but for nothing that is left. */
  async function exhaust(limit: Limit, { name }: Service) {
    for (;;)
      try {
        await assay.limits.take(limit, `service:${name}`)
      } catch {
        return
      }
  }

  const WRITES: [
    limit: Limit,
    right: Right,
    write: (service: Service, customer: Customer) => Promise<Answer>,
  ][] = [
    [
      'subjectOfService',
      'sessions',
      (service, customer) =>
        assay.postJson(path(customer, 'subjects/revoke'), { subject: 'user-9' }, bearer(service.credential)),
    ],
    [
      'rotateOfService',
      'rotate',
      (service, customer) => assay.postJson(path(customer, 'secrets/rotate'), {}, bearer(service.credential)),
    ],
    [
      'retireOfService',
      'rotate',
      (service, customer) =>
        assay.postJson(
          path(customer, 'secrets/retire'),
          { use: 'access', version: 9 },
          bearer(service.credential),
        ),
    ],
    [
      'createOfService',
      'create',
      service =>
        assay.postJson(
          '/admin/customers',
          { email: `${randomUUID()}@example.com` },
          bearer(service.credential),
        ),
    ],
  ]

  test.each(WRITES)('by %s, each service by itself, and no operator', async (limit, right, write) => {
    const [busy, quiet] = [await create([right]), await create([right])]
    await exhaust(limit, busy)
    const refused = await write(busy, one)
    expect([refused.status, refused.json.error]).toEqual([429, 'too_many_requests'])
    expect((await write(quiet, two)).status).not.toBe(429)
    expect((await write({ ...quiet, credential: ADMIN_TOKEN }, two)).status).not.toBe(429)
  })
})

describe('a change', () => {
  test('of its rights holds everywhere once wait=all has answered', async () => {
    const service = await create(['issue'])
    const statuses = async () =>
      Promise.all(
        [assay, there].map(
          async replica => (await issueAs(service, { customer: one.id }, {}, replica)).status,
        ),
      )
    expect(await statuses()).toEqual([200, 200])
    await change(service, { may: ['introspect'] })
    expect(await statuses()).toEqual([400, 400])
    const { json } = await issueAs(service, { customer: one.id })
    expect(json).toMatchObject({
      error: 'unauthorized_client',
      error_description: 'this service lacks the right issue; an operator can add it',
    })
    await change(service, { may: ['issue'], customers: [two.id] })
    expect(await statuses()).toEqual([400, 400])
    await change(service, { may: ['issue'] })
    expect(await statuses()).toEqual([200, 200])
  })

  test('is in the audit with what the service may do since, and who changed it', async () => {
    const service = await create(['issue'])
    await change(service, { may: ['revoke', 'issue', 'revoke'], customers: [one.id] })
    const { json } = await assay.get('/admin/audit?operator=admin&type=service.changed&limit=1', ALICE)
    expect(json.events[0]).toMatchObject({
      actor: 'operator:admin',
      detail: { service_id: service.id, name: service.name, may: ['revoke', 'issue'] },
    })
  })
})

test('a name is taken once, also by a service of the settings, and free again when its service is deleted', async () => {
  const post = (name: unknown) =>
    assay.postJson('/admin/services', { name, may: ['issue'] }, bearer(ADMIN_TOKEN))
  const taken = {
    status: 409,
    json: { error: 'conflict', detail: expect.stringContaining('choose a different one') },
  }
  const { json } = await post('shop-api')
  expect(await post('shop-api')).toMatchObject(taken)
  expect(await post('gateway')).toMatchObject(taken)
  await assay.request(`/admin/services/${json.id}`, { method: 'DELETE', headers: bearer(ADMIN_TOKEN) })
  expect((await post('shop-api')).status).toBe(201)
  for (const name of ['', 'Shop', '7shop', 'shop_api', 'shop api', 'é', 'a'.repeat(41), undefined, 7])
    expect((await post(name)).status).toBe(400)
})

test('a service of the setting SERVICES has its rights too, by Basic and in the form, and no other', async () => {
  const secret = 'Sh8fQ2mZk1Vx9sTb4Yc6Lr8Np3Hd5Je0Ub'
  const replica = await world.replica({ SERVICES: `shop:issue+sessions:${secret}` })
  const authorization = { Authorization: basic('shop', secret) }
  const issued = await replica.postJson('/issue', { customer: one.id, refresh: true }, authorization)
  expect(issued.status).toBe(200)
  const grant = {
    grant_type: 'client_credentials',
    customer: one.id,
    client_id: 'shop',
    client_secret: secret,
  }
  expect((await replica.postForm('/token', grant)).status).toBe(200)
  const sessions = await replica.get(path(one, 'sessions'), undefined, authorization)
  expect(sessions.json.sessions[0].id).toBe(issued.json.session_id)
  expect((await eventsOf(one))[0].actor).toBe('service:shop')
  expect((await replica.get(path(one, 'secrets'), undefined, authorization)).status).toBe(403)
  expect((await replica.introspect('x', basic('shop', secret))).json.error).toBe('unauthorized_client')
  for (const wrong of [basic('shop', `${secret}x`), basic('other', secret), `Bearer ${secret}`])
    expect((await replica.get(path(one, 'sessions'), undefined, { Authorization: wrong })).status).toBe(401)
  await replica.stop()
})

test('when it was used last is shown to operators', async () => {
  const service = await create(['issue'])
  const listed = async () => {
    const { json } = await assay.get('/admin/services', ADMIN_TOKEN)
    return json.services.find(({ id }: Service) => id === service.id)
  }
  expect((await listed()).last_used_at).toBeUndefined()
  await issueAs(service, { customer: one.id })
  await assay.clients.flush()
  expect(Date.parse((await listed()).last_used_at)).toBeGreaterThan(
    Date.parse((await listed()).created_at) - 1,
  )
})

test('a customer sees in its audit which service acted, but not from where', async () => {
  const service = await create(['issue'])
  await issueAs(service, { customer: one.id })
  const { json } = await assay.get('/api/audit', one.accessToken)
  expect(json.events[0]).toMatchObject({ type: 'token.issued', actor: `service:${service.name}` })
  expect(json.events[0].ip).toBeUndefined()
  expect((await eventsOf(one))[0].ip).toMatch(/^10\./)
})

test('a service has no account: it is sent to the routes that name a customer', async () => {
  const service = await create(['sessions'])
  const { status, json } = await assay.get('/api/sessions', service.credential)
  expect([status, json.detail]).toEqual([
    403,
    expect.stringContaining('/admin/customers/{customer}/sessions'),
  ])
})

test('its credential is explained as such, and is in no log', async () => {
  const service = await create(['introspect'])
  const form = { token: service.credential }
  const { json } = await assay.postForm('/introspect/explain', form, bearer(service.credential))
  expect(json).toMatchObject({ active: false, reason: 'credential' })
  expect(assay.lines.join('\n')).not.toContain(service.credential.split('_')[3])
})
