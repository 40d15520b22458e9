import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { orderAll } from '../support/audit-order.ts'
import { holding, named } from '../support/holding.ts'
import {
  ADMIN_TOKEN,
  ALICE,
  bearer,
  type Customer,
  makeWorld,
  READER,
  type Replica,
  type World,
} from '../support/world.ts'

/** The operator's actions on customers, tested through the API. */

let world: World
let assay: Replica

beforeAll(async () => {
  world = await makeWorld()
  assay = await world.replica()
})
afterAll(() => world.stop())

const asAlice = bearer(ALICE)
const path = (id: string, more = '') => `/admin/customers/${id}${more}`
const call = (method: string, at: string, body?: object, headers: Record<string, string> = {}) =>
  assay.request(at, {
    method,
    headers: { ...asAlice, ...(body && { 'Content-Type': 'application/json' }), ...headers },
    ...(body && { body: JSON.stringify(body) }),
  })
const events = async (query: string) => (await call('GET', `/admin/audit?${query}`)).json.events

describe('operators', () => {
  test('each has a name, which the audit shows', async () => {
    const customer = await assay.signUp()
    for (const [token, name] of [
      [ADMIN_TOKEN, 'admin'],
      [ALICE, 'alice'],
    ] as const) {
      await call('PATCH', path(customer.id), { name }, bearer(token))
      const [newest] = await events(`customer=${customer.id}`)
      expect(newest).toMatchObject({
        type: 'customer.changed',
        actor: `operator:${name}`,
        customer_id: customer.id,
      })
    }
  })

  test('a read-only operator is told why it is refused, and changes nothing', async () => {
    const customer = await assay.signUp()
    const refused = await call('POST', path(customer.id, '/disable'), undefined, bearer(READER))
    expect(refused).toMatchObject({ status: 403, json: { error: 'insufficient_scope' } })
    expect(refused.json.detail).toContain('is read-only')
    const seen = await call('GET', path(customer.id), undefined, bearer(READER))
    expect(seen).toMatchObject({ status: 200, json: { state: 'active' } })
  })
})

describe('a customer', () => {
  test('is created with an API key that works, and cannot log in until it has a password', async () => {
    const email = `${crypto.randomUUID()}@example.com`
    const { status, json, headers } = await call('POST', '/admin/customers', { email, name: 'Ann' })
    expect(status).toBe(201)
    expect(headers.get('etag')).toBe('"1"')
    expect(json.customer).toMatchObject({ email, name: 'Ann', state: 'active' })
    const issued = await assay.postJson('/issue', { subject: 'user-1' }, bearer(json.api_key))
    expect((await assay.verify(issued.json.access_token)).status).toBe(200)
    const logIn = (password: string) => assay.postJson('/api/auth/login', { email, password })
    expect((await logIn('correct horse battery')).status).toBe(401)
    const password = 'another horse battery'
    expect((await call('PUT', path(json.customer.id, '/password'), { password })).status).toBe(204)
    expect((await logIn(password)).status).toBe(200)
  })

  test('is created once, however often the request is repeated under one Idempotency-Key, and gets the same API key', async () => {
    const there = await world.replica()
    const body = { email: `${crypto.randomUUID()}@example.com`, name: 'Ann' }
    const key = { 'Idempotency-Key': crypto.randomUUID() }
    const first = await call('POST', '/admin/customers', body, key)
    const again = await there.postJson('/admin/customers', body, { ...asAlice, ...key })
    expect([first.status, again.status]).toEqual([201, 201])
    expect(again.json).toEqual(first.json)
    expect((await assay.postJson('/issue', {}, bearer(again.json.api_key))).status).toBe(200)
    const other = { email: `${crypto.randomUUID()}@example.com` }
    expect((await call('POST', '/admin/customers', other, key)).status).toBe(400)
    // The same Idempotency-Key of another operator is a different key, and so is a request without one.
    expect((await call('POST', '/admin/customers', body, { ...key, ...bearer(ADMIN_TOKEN) })).status).toBe(
      409,
    )
    expect((await call('POST', '/admin/customers', body)).status).toBe(409)
    const made = await Promise.all([1, 2].map(() => call('POST', '/admin/customers', other, asAlice)))
    expect(made.map(({ status }) => status).sort()).toEqual([201, 409])
    expect((await call('POST', '/admin/customers', other, { 'Idempotency-Key': 'a b' })).status).toBe(400)
  })

  test('is not created by a different request under the same key, and the error says why', async () => {
    const password = 'correct horse battery'
    const body = { email: `${crypto.randomUUID()}@example.com`, name: 'Ann', password }
    const key = { 'Idempotency-Key': crypto.randomUUID() }
    const first = await call('POST', '/admin/customers', body, key)
    const { name, ...nameless } = body
    const others = [
      { ...body, name: 'Bob' },
      { ...body, password: `${password}!` },
      { email: body.email, name },
    ]
    for (const other of [...others, nameless, { ...body, email: `x${body.email}` }]) {
      const refused = await call('POST', '/admin/customers', other, key)
      expect(refused).toMatchObject({ status: 400, json: { error: 'invalid_request' } })
      expect(refused.json.detail).toContain('used with another request')
      expect(refused.text).not.toContain(first.json.customer.id)
    }
    const again = await call('POST', '/admin/customers', body, key)
    expect(again.json).toEqual(first.json)
    expect((await assay.postJson('/api/auth/login', { email: body.email, password })).status).toBe(200)
  })

  test('that has no password is not returned to a request with one under the same key', async () => {
    const body = { email: `${crypto.randomUUID()}@example.com` }
    const key = { 'Idempotency-Key': crypto.randomUUID() }
    expect((await call('POST', '/admin/customers', body, key)).status).toBe(201)
    const other = { ...body, password: 'correct horse battery' }
    expect((await call('POST', '/admin/customers', other, key)).status).toBe(400)
    expect((await assay.postJson('/api/auth/login', other)).status).toBe(401)
  })

  test('that has changed since is returned as it is now, and a deleted first API key is not returned', async () => {
    const body = { email: `${crypto.randomUUID()}@example.com`, password: 'correct horse battery' }
    const key = { 'Idempotency-Key': crypto.randomUUID() }
    const { customer, api_key } = (await call('POST', '/admin/customers', body, key)).json
    const email = `new-${body.email}`
    await call('PATCH', path(customer.id), { email })
    await call('PUT', path(customer.id, '/password'), { password: 'another horse battery' })
    const retried = await call('POST', '/admin/customers', body, key)
    expect(retried).toMatchObject({ status: 201, json: { customer: { id: customer.id, email }, api_key } })
    const [first] = (await call('GET', path(customer.id, '/keys'))).json.keys
    expect((await call('DELETE', path(customer.id, `/keys/${first.id}`))).status).toBe(204)
    const late = await call('POST', '/admin/customers', body, key)
    expect(late).toMatchObject({ status: 400, json: { error: 'invalid_request' } })
    expect(late.json.detail).toContain('has been deleted')
    expect((await assay.postJson('/issue', {}, bearer(api_key))).status).toBe(401)
  })

  test('is created once by concurrent requests under one key, whichever arrives first', async () => {
    const there = await world.replica()
    for (let round = 0; round < 3; round++) {
      const headers = { ...asAlice, 'Idempotency-Key': crypto.randomUUID() }
      const emails = [1, 2].map(() => `${crypto.randomUUID()}@example.com`)
      const answers = await Promise.all(
        Array.from({ length: 8 }, (_, n) =>
          [assay, there][n % 2]!.postJson('/admin/customers', { email: emails[n >> 2] }, headers),
        ),
      )
      const made = answers.filter(({ status }) => status === 201)
      expect(made).toHaveLength(4)
      expect(new Set(made.map(({ text }) => text)).size).toBe(1)
      for (const { status } of answers) expect([201, 400]).toContain(status)
    }
  })

  test('that was erased is not created again by its Idempotency-Key, nor is its API key', async () => {
    const body = { email: `${crypto.randomUUID()}@example.com` }
    const key = { 'Idempotency-Key': crypto.randomUUID() }
    const { json } = await call('POST', '/admin/customers', body, key)
    await call('DELETE', path(json.customer.id))
    const again = await call('POST', '/admin/customers', body, key)
    expect(again).toMatchObject({ status: 400, json: { error: 'invalid_request' } })
    expect((await assay.postJson('/issue', {}, bearer(json.api_key))).status).toBe(401)
    expect((await call('POST', '/admin/customers', body)).status).toBe(201)
  })

  test('that was erased is not created again by an attempt that began before it existed', async () => {
    const body = { email: `${crypto.randomUUID()}@example.com` }
    const headers = { ...asAlice, 'Idempotency-Key': crypto.randomUUID() }
    const database = holding(world.db)
    const slow = await world.replica({}, { link: database.db })
    const looked = database.hold(named('findErasure'))
    const late = slow.postJson('/admin/customers', body, headers)
    await looked.has
    const { json } = await assay.postJson('/admin/customers', body, headers)
    expect((await call('DELETE', path(json.customer.id))).status).toBe(200)
    looked.release()
    expect(await late).toMatchObject({ status: 400, json: { error: 'invalid_request' } })
    expect((await assay.postJson('/issue', {}, bearer(json.api_key))).status).toBe(401)
  })

  test('can be created while signup is closed', async () => {
    const closed = await world.replica({ SIGNUP: 'closed' })
    const email = `${crypto.randomUUID()}@example.com`
    const made = await closed.postJson('/admin/customers', { email }, asAlice)
    expect(made.status).toBe(201)
  })

  test('whose email is taken is not created, and cannot be changed to that email', async () => {
    const [one, two] = [await assay.signUp(), await assay.signUp()]
    expect((await call('POST', '/admin/customers', { email: one.email })).status).toBe(409)
    expect((await call('PATCH', path(two.id), { email: one.email })).status).toBe(409)
    expect((await call('GET', path(two.id))).json.email).toBe(two.email)
  })

  test('is changed only if it has not changed since it was read, where the request requires that', async () => {
    const { id } = await assay.signUp()
    const tag = (await call('GET', path(id))).headers.get('etag')!
    const first = await call('PATCH', path(id), { name: 'one' }, { 'If-Match': tag })
    expect(first).toMatchObject({ status: 200, json: { name: 'one' } })
    const late = await call('PATCH', path(id), { name: 'two' }, { 'If-Match': tag })
    expect(late).toMatchObject({ status: 412, json: { error: 'precondition_failed' } })
    expect((await call('POST', path(id, '/disable'), undefined, { 'If-Match': tag })).status).toBe(412)
    expect((await call('GET', path(id))).json).toMatchObject({ name: 'one', state: 'active' })
    expect((await call('PATCH', path(id), { name: 'three' }, { 'If-Match': '*' })).status).toBe(200)
    expect((await call('PATCH', path(id), { name: 'four' }, { 'If-Match': 'W/"3"' })).status).toBe(400)
  })

  test('that is disabled is refused here at once and everywhere after wait=all, and works again when enabled', async () => {
    const there = await world.replica()
    const customer = await assay.signUp()
    const { access_token, refresh_token } = await customer.session()
    expect((await there.verify(access_token)).status).toBe(200)
    const disabled = await call('POST', path(customer.id, '/disable?wait=all'))
    expect(disabled).toMatchObject({ status: 200, json: { state: 'disabled' } })
    for (const replica of [assay, there]) expect((await replica.verify(access_token)).status).toBe(401)
    expect((await assay.refresh(refresh_token)).status).toBe(403)
    expect((await customer.issue()).status).toBe(403)
    expect((await call('POST', path(customer.id, '/disable'))).status).toBe(200)
    expect((await call('POST', path(customer.id, '/enable?wait=all'))).json.state).toBe('active')
    for (const replica of [assay, there]) expect((await replica.verify(access_token)).status).toBe(200)
    expect((await assay.refresh(refresh_token)).status).toBe(200)
    const types = (await events(`customer=${customer.id}`)).map(({ type }: { type: string }) => type)
    expect(types.filter((type: string) => type.startsWith('customer.'))).toEqual([
      'customer.enabled',
      'customer.disabled',
      'customer.signed_up',
    ])
  })

  test("whose password is set loses the account's own sessions, but not those of its users", async () => {
    const customer = await assay.signUp()
    const { access_token } = await customer.session()
    expect(
      (await call('PUT', path(customer.id, '/password'), { password: 'a new horse battery' })).status,
    ).toBe(204)
    expect((await assay.verify(customer.accessToken)).status).toBe(401)
    expect((await assay.verify(access_token)).status).toBe(200)
  })

  test.each([
    ['GET', ''],
    ['PATCH', '', { name: 'x' }],
    ['DELETE', ''],
    ['POST', '/disable'],
    ['POST', '/enable'],
    ['PUT', '/password', { password: 'correct horse battery' }],
    ['POST', '/revoke'],
    ['GET', '/keys'],
    ['GET', '/secrets'],
    ['POST', '/secrets/rotate', {}],
    ['GET', '/sessions'],
    ['GET', '/audit'],
    ['DELETE', '/sessions/aaaaaaaaaaaaaaaaaaaaaaaa'],
  ] as const)('that does not exist is 404: %s %s', async (method, more, body?: object) => {
    for (const id of ['aaaaaaaaaaaaaaaa', 'x', '%00', 'a'.repeat(200)])
      expect(await call(method, path(id, more), body)).toMatchObject({
        status: 404,
        json: { error: 'not_found' },
      })
  })
})

describe('the list', () => {
  const mark = crypto.randomUUID().slice(0, 8)
  const emails = [3, 1, 2].map(n => `${mark}-${n}@example.com`)

  beforeAll(async () => {
    for (const email of emails)
      await call('POST', '/admin/customers', { email, name: `Shop ${mark} ${email}` })
  })

  /** All customers on all pages, in order. */
  async function walk(query: string, limit = 2): Promise<string[]> {
    const found: string[] = []
    for (let cursor = ''; ; ) {
      const { status, json } = await call('GET', `/admin/customers?${query}&limit=${limit}${cursor}`)
      expect(status).toBe(200)
      found.push(...json.customers.map(({ email }: { email: string }) => email))
      if (json.next_cursor === undefined) return found
      cursor = `&cursor=${json.next_cursor}`
    }
  }

  test('has all, newest first', async () => {
    const all = await walk('', 100)
    expect(all.slice(0, 3)).toEqual(emails.toReversed())
    expect(new Set(all).size).toBe(all.length)
  })

  test('finds customers by the beginning of an email, sorted by email', async () => {
    expect(await walk(`email=${mark.toUpperCase()}-`)).toEqual(emails.toSorted())
    expect(await walk(`email=${mark}-2`)).toEqual([emails[2]])
    expect(await walk(`email=${mark}x`)).toEqual([])
  })

  test('finds customers by the beginning of a name, in any case', async () => {
    expect(await walk(`name=SHOP%20${mark}`)).toEqual(emails.toSorted())
    // Pattern characters match only themselves.
    for (const odd of ['%25', '_', '%5C', "'"]) expect(await walk(`name=${odd}${mark}`)).toEqual([])
  })

  test('refuses a cursor of another list, and two searches in one request', async () => {
    const page = await call('GET', '/admin/customers?limit=1')
    const queries = [
      `email=a&cursor=${page.json.next_cursor}`,
      `cursor=${Buffer.from('aaaaaaaaaaaaaaaa x').toString('base64url')}`,
      'cursor=x',
      'email=a&cursor=AAAA',
      'email=a&name=b',
      'email=%20',
      'name=+',
      'email=',
      'name=',
      'limit=0',
      'sort=name',
    ]
    for (const query of queries)
      expect(await call('GET', `/admin/customers?${query}`)).toMatchObject({
        status: 400,
        json: { error: 'invalid_request' },
      })
  })
})

describe("a customer's own resources", () => {
  test('an operator can manage them like the customer itself, under the operator’s name', async () => {
    const customer = await assay.signUp()
    const { session_id, access_token } = await customer.session()
    const sessions = (await call('GET', path(customer.id, '/sessions?subject=user-1'))).json.sessions
    expect(sessions).toMatchObject([{ id: session_id, subject: 'user-1' }])
    expect((await call('DELETE', path(customer.id, `/sessions/${session_id}`))).status).toBe(204)
    expect((await assay.verify(access_token)).status).toBe(401)
    const key = (await call('POST', path(customer.id, '/keys'), { name: 'of alice', scopes: ['read'] })).json
    expect((await assay.postJson('/issue', {}, bearer(key.api_key))).status).toBe(200)
    expect((await call('DELETE', path(customer.id, `/keys/${key.id}`))).status).toBe(204)
    expect((await assay.postJson('/issue', {}, bearer(key.api_key))).status).toBe(401)
    const rotated = await call('POST', path(customer.id, '/secrets/rotate'), { use: 'access', now: true })
    expect(rotated.json.versions).toEqual([{ use: 'access', version: 2 }])
    const after = await events(`customer=${customer.id}&limit=10`)
    const done = after.filter(({ actor }: { actor: string }) => actor === 'operator:alice')
    expect(done.map(({ type }: { type: string }) => type)).toEqual([
      'secret.rotated',
      'api_key.deleted',
      'api_key.created',
      'session.revoked',
    ])
  })

  test('a subject made of dots can be revoked like any other, and the customer is unaffected', async () => {
    const customer = await assay.signUp()
    const { access_token } = await customer.session()
    for (const subject of ['..', '.', '../..', '%2e%2e']) {
      const headers = bearer(customer.apiKey)
      expect((await call('POST', path(customer.id, '/subjects/revoke'), { subject })).status).toBe(204)
      expect((await assay.postJson('/api/subjects/revoke', { subject }, headers)).status).toBe(204)
    }
    expect((await assay.verify(access_token)).status).toBe(200)
    for (const body of [{}, { subject: '' }, { subject: 7 }, { subject: 'user-1', customer: customer.id }])
      expect((await call('POST', path(customer.id, '/subjects/revoke'), body)).status).toBe(400)
    expect((await assay.verify(access_token)).status).toBe(200)
  })

  test('all tokens and sessions of a subject, or of a customer, can be revoked', async () => {
    const customer = await assay.signUp()
    const [one, two] = [await customer.session(), await customer.session({ subject: 'user-2' })]
    expect((await call('POST', path(customer.id, '/subjects/revoke'), { subject: 'user-1' })).status).toBe(
      204,
    )
    expect((await assay.verify(one.access_token)).status).toBe(401)
    expect((await assay.verify(two.access_token)).status).toBe(200)
    expect((await call('POST', path(customer.id, '/revoke'))).status).toBe(204)
    expect((await assay.verify(two.access_token)).status).toBe(401)
    expect((await assay.refresh(two.refresh_token)).status).toBe(400)
  })
})

test('a token can be revoked alone or with its session, and an invalid one is no error', async () => {
  const customer = await assay.signUp()
  const [one, two, three] = await Promise.all([customer.session(), customer.session(), customer.session()])
  const revoke = async (body: object) => (await call('POST', '/admin/revoke?wait=all', body)).status
  expect(await revoke({ token: one.access_token })).toBe(204)
  expect((await assay.verify(one.access_token)).status).toBe(401)
  expect((await assay.refresh(one.refresh_token)).status).toBe(200)
  expect(await revoke({ token: two.access_token, session: true })).toBe(204)
  expect((await assay.refresh(two.refresh_token)).status).toBe(400)
  expect(await revoke({ token: three.refresh_token })).toBe(204)
  expect((await assay.verify(three.access_token)).status).toBe(401)
  expect(await revoke({ token: 'garbage' })).toBe(204)
  const [newest] = await events(`customer=${customer.id}`)
  expect(newest).toMatchObject({ type: 'session.revoked', actor: 'operator:alice' })
})

describe('erasing', () => {
  const left = async (customer: Customer) => {
    const tables = [
      'customers:id',
      'signing_keys',
      'api_keys',
      'sessions',
      'idempotency_keys',
      'one_time_tokens',
      'subject_epochs',
      `revocations:kind <> 'customer' and customer_id`,
    ]
    const counts = tables.map(async table => {
      const [name, column = 'customer_id'] = table.split(':')
      const [row] = await world.admin.query<{ n: number }>(
        `select count(*)::int as n from assay.${name} where ${column} = $1`,
        [customer.id],
      )
      return row!.n
    })
    return Promise.all(counts)
  }

  /** Every row of every table, as JSON. */
  async function everything() {
    const tables = await world.admin.query<{ name: string }>(
      `select relname as name from pg_class where relnamespace = 'assay'::regnamespace and relkind = 'r'`,
    )
    const rows = tables.map(({ name }) =>
      world.admin.query<{ all: string }>(`select json_agg(row)::text as all from assay.${name} as row`),
    )
    return (await Promise.all(rows))
      .flat()
      .map(({ all }) => all)
      .join()
  }

  test('leaves no row and no personal data, and returns a receipt', async () => {
    const there = await world.replica()
    const customer = await assay.signUp()
    const { access_token, refresh_token } = await customer.session({ subject: 'ann@example.com' })
    await customer.issue({ subject: 'bob@example.com', refresh: true }, { 'Idempotency-Key': 'k' })
    await call('POST', path(customer.id, '/subjects/revoke'), { subject: 'bob@example.com' })
    expect((await call('POST', path(customer.id, '/password-reset'), {})).status).toBe(201)
    expect(await everything()).toContain('bob@example.com')
    expect((await there.verify(access_token)).status).toBe(200)
    const erased = await call('DELETE', path(customer.id, '?wait=all'))
    expect(erased).toMatchObject({
      status: 200,
      json: { id: customer.id, api_keys: 1, secrets: 2, sessions: 3 },
    })
    expect(await left(customer)).toEqual([0, 0, 0, 0, 0, 0, 0, 0])
    for (const replica of [assay, there]) expect((await replica.verify(access_token)).status).toBe(401)
    expect((await assay.refresh(refresh_token)).status).toBe(400)
    expect((await customer.issue()).status).toBe(401)
    const after = await events(`customer=${customer.id}&limit=100`)
    expect(after.length).toBeGreaterThan(4)
    expect(after[0]).toMatchObject({
      type: 'customer.erased',
      actor: 'operator:alice',
      detail: { sessions: 3 },
    })
    for (const event of after.slice(1))
      for (const personal of ['subject', 'ip', 'user_agent']) expect(event).not.toHaveProperty(personal)
    const rows = await everything()
    for (const personal of ['ann@', 'bob@', customer.email]) expect(rows).not.toContain(personal)
    expect((await call('DELETE', path(customer.id))).status).toBe(404)
    const again = await assay.postJson('/api/auth/signup', {
      email: customer.email,
      password: customer.password,
    })
    expect(again.status).toBe(201)
  })

  /** The database after an erasure that this replica has not read yet. */
  async function eraseUnheard({ id }: Customer) {
    for (const table of ['sessions', 'api_keys', 'signing_keys'])
      await world.admin.query(`delete from assay.${table} where customer_id = $1`, [id])
    await world.admin.query('delete from assay.customers where id = $1', [id])
  }

  const REQUESTS: Record<string, [method: string, path: string, body?: object]> = {
    'reading the account': ['GET', '/api/auth/me'],
    'changing the password': ['POST', '/api/auth/password', { password: 'p', new_password: 'a new horse' }],
    'asking for another address': ['POST', '/api/auth/email', { email: 'ann@example.org', password: 'p' }],
    'creating an API key': ['POST', '/api/keys', { name: 'new' }],
    'deleting an API key': ['DELETE', `/api/keys/${'a'.repeat(32)}`],
    'ending a session': ['DELETE', `/api/sessions/${'a'.repeat(24)}`],
    'ending all sessions': ['DELETE', '/api/sessions'],
    'rotating the secrets': ['POST', '/api/secrets/rotate', {}],
    'retiring a secret': ['POST', '/api/secrets/retire', { use: 'access', version: 1 }],
  }

  test.each(Object.entries(REQUESTS))(
    'refuses the token of a request that was overtaken by the erasure: %s',
    async (_, request) => {
      const customer = await assay.signUp()
      expect((await assay.verify(customer.accessToken)).status).toBe(200)
      await eraseUnheard(customer)
      const [method, at, body] = request
      const refused = await call(method, at, body, bearer(customer.accessToken))
      expect(refused).toMatchObject({ status: 401, json: { error: 'invalid_token' } })
      expect(Number(refused.headers.get('content-length'))).toBe(Buffer.byteLength(refused.text))
      const byKey = await call('DELETE', REQUESTS['ending a session']![1], undefined, bearer(customer.apiKey))
      expect(byKey).toMatchObject({ status: 401, json: { error: 'invalid_client' } })
    },
  )

  test('tells an operator whose request was overtaken that there is no such customer', async () => {
    const customer = await assay.signUp()
    const database = holding(world.db)
    const slow = await world.replica({}, { link: database.db })
    const loaded = database.hold(named('findListed'))
    const late = slow.postJson(path(customer.id, '/keys'), {}, asAlice)
    await loaded.has
    expect((await call('DELETE', path(customer.id))).status).toBe(200)
    loaded.release()
    expect(await late).toMatchObject({ status: 404, json: { detail: 'no such customer; check the id' } })
  })

  test('removes rows that were being written at that time in the next round of maintenance', async () => {
    const customer = await assay.signUp()
    await call('DELETE', path(customer.id))
    await world.admin.query(
      `insert into assay.sessions (customer_id, id, subject, scope, audience, access_ttl, customer_epoch, subject_epoch,
        issued_at, rotated_at, key_version, access_until, expires_at, ends_at)
      values ($1, 'aaaaaaaaaaaaaaaaaaaaaaaa', 'late@example.com', '', '"x"', 300, 0, 0, now(), now(), 1, now(), now(), now())`,
      [customer.id],
    )
    await world.admin.query(
      `insert into assay.audit_events (at, customer_id, type, actor, subject, ip)
      values (now(), $1, 'token.issued', 'api_key:x', 'late@example.com', '10.0.0.9')`,
      [customer.id],
    )
    await world.admin.query(
      `insert into assay.revocations (seq, kind, customer_id, key, epoch, dead_after)
      select seq + 1000, 'subject', $1, 'late@example.com', 1, now() + interval '1 day' from assay.change_feed`,
      [customer.id],
    )
    await world.maintain()
    expect(await left(customer)).toEqual([0, 0, 0, 0, 0, 0, 0, 0])
    expect(JSON.stringify(await events(`customer=${customer.id}`))).not.toContain('late@')
  })
})

describe('the installation-wide audit', () => {
  test('can be searched by type, operator, customer and time, page by page', async () => {
    const customer = await assay.signUp()
    for (const name of ['a', 'b', 'c']) await call('PATCH', path(customer.id), { name }, bearer(ADMIN_TOKEN))
    const first = await call('GET', '/admin/audit?operator=admin&type=customer.changed&limit=2')
    expect(first.json.events).toHaveLength(2)
    const second = await call(
      'GET',
      `/admin/audit?operator=admin&type=customer.changed&limit=2&cursor=${first.json.next_cursor}`,
    )
    const ids = [...first.json.events, ...second.json.events].map(({ id }: { id: string }) => Number(id))
    expect(ids).toEqual(ids.toSorted((a, b) => b - a))
    expect(second.json.events.length).toBeGreaterThan(0)
    for (const query of ['type=customer.changed', 'type=token.issued', 'operator=admin', 'limit=1'])
      expect((await events(query)).length).toBeGreaterThan(0)
    expect(await events('operator=nobody')).toEqual([])
    expect(await events(`to=2020-01-01T00:00:00Z`)).toEqual([])
    for (const query of ['type=x', `customer=${customer.id}&operator=a`, 'customer=x', 'cursor=x', 'from=x'])
      expect((await call('GET', `/admin/audit?${query}`)).status).toBe(400)
  })

  test('is exported as lines, with every event once', async () => {
    const customer = await assay.signUp()
    await Promise.all(Array.from({ length: 30 }, () => customer.issue()))
    await world.admin.query(
      `insert into assay.audit_events (at, customer_id, type, actor)
      select assay.now() - make_interval(secs => n), $1, 'token.issued', 'api_key:x' from generate_series(1, 2500) n`,
      [customer.id],
    )
    await orderAll(world)
    const { status, headers, text } = await call('GET', `/admin/audit/export?customer=${customer.id}`)
    expect(status).toBe(200)
    expect(headers.get('content-type')).toBe('application/x-ndjson')
    const lines = text
      .trimEnd()
      .split('\n')
      .map(line => JSON.parse(line))
    expect(lines).toHaveLength(2_531)
    expect(new Set(lines.map(({ id }) => id)).size).toBe(2_531)
    expect(new Set(lines.map(({ customer_id }) => customer_id))).toEqual(new Set([customer.id]))
  })
})

test('an operator can list the replicas: their ids, the age of their state, and how far they lag', async () => {
  const there = await world.replica()
  await there.changeFeed.poll()
  const { json } = await call('GET', '/admin/replicas')
  expect(json.replicas.length).toBeGreaterThanOrEqual(2)
  for (const replica of json.replicas)
    expect(replica).toMatchObject({ version: '0.1.0', max_staleness_ms: 5000 })
})
