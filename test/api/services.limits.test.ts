import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { RIGHT_OF_ROUTE, RIGHTS } from '../../server/clients/rights.ts'
import { holding, replicaOn } from '../support/holding.ts'
import {
  ADMIN_TOKEN,
  type Answer,
  basic,
  bearer,
  type Customer,
  claimsOf,
  makeWorld,
  type Replica,
  type Tokens,
  type World,
} from '../support/world.ts'

/** A service that is limited to one customer can't act for another, and can't learn whether another exists. */

let world: World
let assay: Replica
let own: Customer
let other: Customer
let service: { id: string; credential: string }
let ownSession: Tokens
let otherSession: Tokens

/** No customer has this id, although it is well-formed. */
const MADE_UP = 'a'.repeat(16)
/** Every right that a limited service can have. */
const MAY = RIGHTS.filter(right => right !== 'create')

const createService = (body: object) => assay.postJson('/admin/services', body, bearer(ADMIN_TOKEN))

beforeAll(async () => {
  world = await makeWorld()
  assay = await world.replica()
  ;[own, other] = [await assay.signUp(), await assay.signUp()]
  ;[ownSession, otherSession] = [await own.session(), await other.session()]
  service = (await createService({ name: 'limited', may: MAY, customers: [own.id] })).json
})
afterAll(() => world.stop())

interface Attempt {
  method?: string
  path: string
  json?: object
  form?: Record<string, string>
  headers?: Record<string, string>
}

type Sent = (replica: Pick<Replica, 'request'>, attempt: Attempt) => Promise<Answer>

const WAYS: Record<string, () => Record<string, string>> = {
  Bearer: () => bearer(service.credential),
  Basic: () => ({ Authorization: basic(service.id, service.credential) }),
}

const sending =
  (way: () => Record<string, string>): Sent =>
  (replica, { method = 'POST', path, json, form, headers }) =>
    replica.request(path, {
      method,
      headers: { ...way(), ...(json && { 'Content-Type': 'application/json' }), ...headers },
      ...(json && { body: JSON.stringify(json) }),
      ...(form && { body: new URLSearchParams(form) }),
    })

/** Everything that the caller sees, but for what differs from one request to the next. */
function visible({ status, headers, text }: Answer) {
  const { 'x-request-id': _, 'x-assay-age': __, date: ___, ...rest } = Object.fromEntries(headers)
  return { status, headers: rest, text: text.replace(/"request_id":"[^"]+"/, '') }
}

/** Each route of the table and each place where a customer can be named. */
function attemptsFor(id: string, sessionId: string): Record<string, Attempt> {
  const admin = `/admin/customers/${id}`
  return {
    'POST /issue': { path: '/issue', json: { customer: id, subject: 'user-1' } },
    'POST /issue that starts a session': { path: '/issue', json: { customer: id, refresh: true } },
    'POST /issue under the Idempotency-Key of its own API key': {
      path: '/issue',
      json: { customer: id, refresh: true },
      headers: { 'Idempotency-Key': 'key-of-the-customer' },
    },
    'POST /issue with a scope that nobody may grant': {
      path: '/issue',
      json: { customer: id, scope: 'assay:account' },
    },
    'POST /token client_credentials': {
      path: '/token',
      form: { grant_type: 'client_credentials', customer: id },
    },
    'POST /token with client_id': {
      path: '/token',
      form: { grant_type: 'client_credentials', client_id: id, customer: id },
    },
    'GET sessions': { method: 'GET', path: `${admin}/sessions` },
    'GET sessions of a subject': { method: 'GET', path: `${admin}/sessions?subject=user-1` },
    'GET sessions with a wrong parameter': { method: 'GET', path: `${admin}/sessions?customer=${id}` },
    'DELETE a session': { method: 'DELETE', path: `${admin}/sessions/${sessionId}` },
    'DELETE a session and wait': { method: 'DELETE', path: `${admin}/sessions/${sessionId}?wait=all` },
    'POST subjects/revoke': { path: `${admin}/subjects/revoke`, json: { subject: 'user-1' } },
    'POST subjects/revoke of nobody': { path: `${admin}/subjects/revoke`, json: {} },
    'GET secrets': { method: 'GET', path: `${admin}/secrets` },
    'POST secrets/rotate': { path: `${admin}/secrets/rotate`, json: { now: true } },
    'POST secrets/rotate as a dry run': {
      path: `${admin}/secrets/rotate`,
      json: { dry_run: true, now: true },
    },
    'POST secrets/rotate with a customer in the body': {
      path: `${admin}/secrets/rotate`,
      json: { customer: id },
    },
    'POST secrets/retire': { path: `${admin}/secrets/retire`, json: { use: 'access', version: 1 } },
    'POST revoke of all': { path: `${admin}/revoke` },
    'POST password-reset': { path: `${admin}/password-reset`, json: {} },
    'POST email-verification': { path: `${admin}/email-verification`, json: {} },
    'POST email-change': { path: `${admin}/email-change`, json: { email: 'new@example.com' } },
    'POST disable': { path: `${admin}/disable` },
    'POST disable with If-Match': { path: `${admin}/disable`, headers: { 'If-Match': '"1"' } },
    'POST disable with another If-Match': { path: `${admin}/disable`, headers: { 'If-Match': '"77"' } },
    'POST disable and wait': { path: `${admin}/disable?wait=all` },
    'POST enable': { path: `${admin}/enable` },
    'GET the customer': { method: 'GET', path: admin },
    'DELETE the customer': { method: 'DELETE', path: admin },
    'GET keys': { method: 'GET', path: `${admin}/keys` },
    'GET audit': { method: 'GET', path: `${admin}/audit` },
    'GET the audit of all, of the customer': { method: 'GET', path: `/admin/audit?customer=${id}` },
    'POST revoke': { path: `${admin}/revoke` },
    'POST /admin/revoke': { path: '/admin/revoke', json: { customer: id } },
    'PUT policy': { method: 'PUT', path: `${admin}/policy`, json: {} },
    'PUT password': { method: 'PUT', path: `${admin}/password`, json: { password: 'correct horse battery' } },
    'the path of its own customer, in another spelling': {
      method: 'GET',
      path: `/admin/customers/${own.id}%2f..%2f${id}/sessions`,
    },
    'the introspection of its own token': {
      path: '/introspect',
      form: { token: ownSession.access_token, customer: id },
    },
    'the explanation of its own token': {
      path: '/introspect/explain',
      form: { token: ownSession.access_token, customer: id },
    },
    'the revocation of its own token': {
      path: '/revoke',
      form: { token: ownSession.access_token, customer: id },
    },
    'the refresh of its own session': {
      path: '/refresh',
      json: { refresh_token: ownSession.refresh_token, customer: id },
    },
    'the refresh of its own session, in a form': {
      path: '/token',
      form: { grant_type: 'refresh_token', refresh_token: ownSession.refresh_token, customer: id },
    },
  }
}

/** Each route that takes a token. */
const attemptsWith = ({ access_token, refresh_token }: Pick<Tokens, 'access_token' | 'refresh_token'>) =>
  ({
    introspect: { path: '/introspect', form: { token: access_token } },
    'introspect a refresh token': { path: '/introspect', form: { token: refresh_token } },
    'introspect a batch': { path: '/introspect/batch', json: { tokens: [access_token, refresh_token, 'x'] } },
    'introspect, naming its own customer': {
      path: '/introspect',
      form: { token: access_token, customer: own.id },
    },
    'introspect, naming the other customer': {
      path: '/introspect',
      form: { token: access_token, customer: other.id },
    },
    'introspect strictly': {
      path: '/introspect',
      form: { token: access_token },
      headers: { 'X-Consistency': 'strict' },
    },
    'revoke an access token': { path: '/revoke', form: { token: access_token } },
    'revoke its session': { path: '/revoke', form: { token: access_token, session: 'true' } },
    'revoke a refresh token': { path: '/revoke', form: { token: refresh_token } },
    'revoke, naming its own customer': { path: '/revoke', form: { token: refresh_token, customer: own.id } },
    'revoke, naming the other customer': {
      path: '/revoke',
      form: { token: refresh_token, customer: other.id },
    },
    refresh: { path: '/refresh', form: { refresh_token } },
    'refresh in JSON': { path: '/refresh', json: { refresh_token } },
    'refresh at the account': { path: '/api/auth/refresh', json: { refresh_token } },
    'refresh by the grant': { path: '/token', form: { grant_type: 'refresh_token', refresh_token } },
    'refresh, naming its own customer': { path: '/refresh', json: { refresh_token, customer: own.id } },
    'refresh, naming the other customer': { path: '/refresh', json: { refresh_token, customer: other.id } },
  }) satisfies Record<string, Attempt>

const inactive = { access_token: 'a.b.c', refresh_token: 'd.e.f' }

describe.each(Object.entries(WAYS))('by %s', (_, way) => {
  const send = sending(way)

  test('another customer is answered like one that does not exist, wherever it is named', async () => {
    const madeUp = attemptsFor(MADE_UP, 'b'.repeat(24))
    for (const [name, attempt] of Object.entries(attemptsFor(other.id, otherSession.session_id))) {
      const [real, none] = [await send(assay, attempt), await send(assay, madeUp[name]!)]
      expect({ name, ...visible(real) }).toEqual({ name, ...visible(none) })
      expect([name, real.status >= 400]).toEqual([name, true])
    }
  })

  test("another customer's token is answered like none at all, wherever it is sent", async () => {
    const without = attemptsWith(inactive)
    for (const [name, attempt] of Object.entries(attemptsWith(otherSession))) {
      const none = without[name as keyof typeof without]
      const [real, garbage] = [await send(assay, attempt), await send(assay, none)]
      expect({ name, ...visible(real) }).toEqual({ name, ...visible(garbage) })
    }
  })
})

test('its explanation of a token of another customer is that of a token that was never issued', async () => {
  const send = sending(WAYS.Bearer!)
  const explain = async (token: string) =>
    visible(await send(assay, { path: '/introspect/explain', form: { token } })).text.replace(
      /"age_ms":\d+,?/,
      '',
    )
  const [header, ...rest] = otherSession.access_token.split('.')
  const { kid, ...more } = JSON.parse(Buffer.from(header!, 'base64url').toString())
  const neverMade = JSON.stringify({
    ...more,
    kid: kid.replace(/.$/, (last: string) => (last === 'a' ? 'b' : 'a')),
  })
  const madeUp = [Buffer.from(neverMade).toString('base64url'), ...rest].join('.')
  expect(await explain(otherSession.access_token)).toBe(await explain(madeUp))
})

test('nothing of this has changed the other customer, or its own', async () => {
  for (const customer of [own, other]) expect((await customer.issue()).status).toBe(200)
  for (const session of [ownSession, otherSession]) {
    expect((await assay.verify(session.access_token)).status).toBe(200)
    expect((await assay.refresh(session.refresh_token)).status).toBe(200)
  }
  const { json } = await assay.get(`/admin/customers/${other.id}/audit?limit=100`, ADMIN_TOKEN)
  expect(json.events.filter(({ actor }: { actor: string }) => actor.startsWith('service:'))).toEqual([])
})

test('its own customer is served, by every right that it has', async () => {
  const send = sending(WAYS.Bearer!)
  const { json } = await send(assay, { path: '/issue', json: { customer: own.id, refresh: true } })
  expect(claimsOf(json.access_token).client_id).toBe(own.id)
  const sessions = await send(assay, { method: 'GET', path: `/admin/customers/${own.id}/sessions` })
  expect(sessions.json.sessions.map(({ id }: { id: string }) => id)).toContain(json.session_id)
  const introspected = await send(assay, { path: '/introspect', form: { token: json.access_token } })
  expect(introspected.json).toMatchObject({ active: true, client_id: own.id })
  expect((await send(assay, { path: '/refresh', json: { refresh_token: json.refresh_token } })).status).toBe(
    200,
  )
})

test('a customer that it may not serve costs what one that does not exist costs: no statement', async () => {
  const link = holding(world.db)
  const replica = await replicaOn(world, link.db)
  const byName = /\/\* (?!poll|touchServices|touchApiKeys|orderEvents)\w+ \*\//
  const request = async (path: string, init: RequestInit = {}): Promise<Answer> => {
    const { status, headers } = await replica.app.request(path, init)
    return { status, headers, text: '', json: {} }
  }
  const send = sending(WAYS.Bearer!)
  await send({ request }, attemptsFor(MADE_UP, MADE_UP)['GET secrets']!)
  for (const id of [other.id, MADE_UP]) {
    const before = link.asked(byName)
    for (const [name, attempt] of Object.entries(attemptsFor(id, otherSession.session_id)))
      if (!name.includes('its own')) await send({ request }, attempt)
    expect([id, link.asked(byName) - before]).toEqual([id, 0])
  }
})

test('every route of the table is tried here', () => {
  const attempts = { ...attemptsFor(MADE_UP, 'c'.repeat(24)), ...attemptsWith(inactive) }
  const patterns = Object.values(attempts).map(({ method = 'POST', path }: Attempt) => {
    const pattern = path.split('?')[0]!.replace(MADE_UP, ':customer').replace('c'.repeat(24), ':id')
    return `${method} ${pattern}`
  })
  const routes = Object.keys(RIGHT_OF_ROUTE).map(route => route.split(' ').slice(0, 2).join(' '))
  const untried = routes.filter(route => !patterns.includes(route))
  // The route for new customers has no customer yet.
  expect([...new Set(untried)]).toEqual(['POST /admin/customers'])
})

describe('a limited service with the right to create customers', () => {
  const refusal = {
    status: 400,
    json: {
      error: 'invalid_request',
      detail: expect.stringContaining('omit customers, or the right create'),
    },
  }

  test('is not created', async () => {
    expect(await createService({ name: 'both', may: ['create'], customers: [own.id] })).toMatchObject(refusal)
  })

  test('cannot come about by a change either', async () => {
    const { json } = await createService({ name: `s-${randomUUID()}`, may: ['create'] })
    const change = (body: object) =>
      assay.request(`/admin/services/${json.id}`, {
        method: 'PUT',
        headers: { ...bearer(ADMIN_TOKEN), 'Content-Type': 'application/json' },
        body: JSON.stringify(body),
      })
    expect(await change({ may: ['create', 'issue'], customers: [own.id] })).toMatchObject(refusal)
    const listed = await assay.get('/admin/services', ADMIN_TOKEN)
    expect(listed.json.services.find(({ id }: { id: string }) => id === json.id).customers).toBeUndefined()
  })

  test('learns nothing of an email: without the right, taken and free ones are answered alike', async () => {
    const send = sending(WAYS.Bearer!)
    const create = async (email: string) =>
      visible(await send(assay, { path: '/admin/customers', json: { email } }))
    expect(await create(other.email)).toEqual(await create(`${randomUUID()}@example.com`))
  })
})
