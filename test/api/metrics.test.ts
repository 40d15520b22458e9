import { createHash, randomBytes } from 'node:crypto'
import { METHODS } from 'node:http'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { UNAVAILABLE } from '../../server/lib/errors.ts'
import { holding, POLL, replicaOn } from '../support/holding.ts'
import { publishCustomer, setState } from '../support/plant.ts'
import { ADMIN_TOKEN, bearer, claimsOf, makeWorld, type Replica, type World } from '../support/world.ts'

let world: World
let assay: Replica

beforeAll(async () => {
  world = await makeWorld()
  assay = await world.replica()
})
afterAll(() => world.stop())

const text = async () => (await assay.get('/metrics', ADMIN_TOKEN)).text

interface Sample {
  name: string
  labels: Record<string, string>
  value: number
}

/** Parses the Prometheus text format, as far as it is used here. */
async function samples(): Promise<Sample[]> {
  const lines = (await text()).split('\n').filter(line => line !== '' && !line.startsWith('#'))
  return lines.map(line => {
    const [, name = '', labels = '', value] = /^(\w+)(?:\{(.*)\})? (\S+)$/.exec(line) ?? []
    const pairs = [...labels.matchAll(/(\w+)="([^"]*)"/g)].map(([, label, of]) => [label, of])
    return { name, labels: Object.fromEntries(pairs), value: Number(value) }
  })
}

/** The sum of the series with this name and these labels. */
async function metric(name: string, labels: Record<string, string> = {}): Promise<number> {
  const matching = (await samples()).filter(
    sample =>
      sample.name === name && Object.entries(labels).every(([label, of]) => sample.labels[label] === of),
  )
  return matching.reduce((sum, { value }) => sum + value, 0)
}

/** The growth of the sum while `act` runs. */
async function growth(name: string, labels: Record<string, string>, act: () => Promise<unknown>) {
  const before = await metric(name, labels)
  await act()
  return (await metric(name, labels)) - before
}

describe('the metrics are for operators', () => {
  test('the operator token can read them, in the format of Prometheus', async () => {
    const { status, headers } = await assay.get('/metrics', ADMIN_TOKEN)
    expect(status).toBe(200)
    expect(headers.get('content-type')).toMatch(/^text\/plain; version=0\.0\.4/)
  })

  test('a missing or incomplete token cannot', async () => {
    for (const token of [undefined, 'x', ADMIN_TOKEN.slice(0, -1), `${ADMIN_TOKEN}x`]) {
      const { status, text, headers } = await assay.get('/metrics', token)
      expect(status).toBe(401)
      expect(headers.get('www-authenticate')).not.toBeNull()
      expect(text).not.toContain('assay_')
    }
  })

  test('no customer credential can read them', async () => {
    const customer = await assay.signUp()
    for (const token of [customer.accessToken, customer.apiKey, customer.refreshToken])
      expect((await assay.get('/metrics', token)).status).toBe(401)
  })

  test('the challenge asks for the scheme that works: Bearer', async () => {
    const { headers } = await assay.get('/metrics')
    expect(headers.get('www-authenticate')).toMatch(/^Bearer\b/)
  })
})

test('requests are counted by method, route and status, and timed by route', async () => {
  const customer = await assay.signUp()
  const listed = { method: 'GET', route: '/api/keys', status: '200' }
  const twice = async () => {
    for (let i = 0; i < 2; i++) await assay.get('/api/keys', customer.accessToken)
  }
  expect(await growth('assay_requests_total', listed, twice)).toBe(2)
  const refused = { ...listed, status: '401' }
  expect(await growth('assay_requests_total', refused, () => assay.get('/api/keys', 'x'))).toBe(1)
  const ended = { method: 'DELETE', route: '/api/sessions/:id', status: '404' }
  const act = () =>
    assay.request('/api/sessions/nothing', { method: 'DELETE', headers: bearer(customer.accessToken) })
  expect(await growth('assay_requests_total', ended, act)).toBe(1)
  expect(await growth('assay_request_seconds_count', { route: '/api/keys' }, twice)).toBe(2)
})

test('verifications are counted by outcome: accepted, or the reason for the refusal', async () => {
  const customer = await assay.signUp()
  const { access_token: token } = await customer.session()
  const counted = (outcome: string, act: () => Promise<unknown>) =>
    growth('assay_verified_total', { outcome }, act)

  expect(await counted('ok', () => assay.verify(token))).toBe(1)
  expect(await counted('ok', () => assay.introspect(token))).toBe(1)
  expect(await counted('token_missing', () => assay.get('/verify'))).toBe(1)
  expect(await counted('token_malformed', () => assay.verify('x'))).toBe(1)
  expect(await counted('rule_malformed', () => assay.verify(token, '/verify?scpoe=read'))).toBe(1)
  expect(await counted('rule_scope', () => assay.verify(token, '/verify?scope=admin'))).toBe(1)
  expect(await counted('signature_wrong', () => assay.verify(`${token.slice(0, -6)}AAAAAA`))).toBe(1)
  await assay.postForm('/revoke', { token }, bearer(customer.apiKey))
  expect(await counted('token_revoked', () => assay.verify(token))).toBe(1)
  const { access_token: old } = await customer.session()
  await world.advance(900_000)
  expect(await counted('expired', () => assay.verify(old))).toBe(1)
})

describe('refreshes are counted by decision', () => {
  const NONE = {
    rotate: 0,
    renew: 0,
    replay: 0,
    adopt: 0,
    reuse: 0,
    ended: 0,
    disabled: 0,
    scope: 0,
    target: 0,
  }

  /** Series exist from a replica's first scrape: the growth of a series that starts with its first event is not visible. */
  async function decided(replica: Replica) {
    const { text } = await replica.get('/metrics', ADMIN_TOKEN)
    const found = text.matchAll(/^assay_refreshed_total\{outcome="(\w+)"\} (\d+)$/gm)
    return Object.fromEntries([...found].map(([, outcome, count]) => [outcome, Number(count)]))
  }

  test('a reuse counts once, and later requests count as an ended session', async () => {
    const replica = await world.replica()
    expect(await decided(replica)).toEqual(NONE)
    const customer = await assay.signUp()
    const stolen = await customer.session()
    const { json: second } = await replica.refresh(stolen.refresh_token)
    const { json: third } = await replica.refresh(second.refresh_token)
    expect(await decided(replica)).toEqual({ ...NONE, rotate: 2 })
    await world.advance(11_000)
    expect((await replica.refresh(stolen.refresh_token)).status).toBe(400)
    expect(await decided(replica)).toEqual({ ...NONE, rotate: 2, reuse: 1 })
    for (const { refresh_token } of [stolen, third]) await replica.refresh(refresh_token)
    await replica.refresh(`${third.refresh_token.slice(0, -6)}AAAAAA`)
    expect(await decided(replica)).toEqual({ ...NONE, rotate: 2, reuse: 1, ended: 2 })
  })

  test('all other outcomes', async () => {
    const replica = await world.replica()
    const customer = await assay.signUp()
    const { refresh_token, session_id } = await customer.session()
    const { json } = await replica.refresh(refresh_token)
    await replica.refresh(refresh_token)
    await replica.postForm('/refresh', { refresh_token: json.refresh_token, scope: 'admin' })
    await replica.postForm('/refresh', { refresh_token: json.refresh_token, audience: 'other' })
    await world.admin.query('update assay.sessions set gen = 1 where id = $1', [session_id])
    const adopted = await replica.refresh(json.refresh_token)
    await replica.setPolicy(customer.id, { refresh_policy: 'reusable' })
    await replica.refresh(adopted.json.refresh_token, bearer(customer.apiKey))
    await setState(world, customer.id, 'disabled', [replica])
    await replica.refresh(adopted.json.refresh_token)
    expect(await decided(replica)).toEqual({
      ...NONE,
      rotate: 1,
      renew: 1,
      replay: 1,
      scope: 1,
      target: 1,
      adopt: 1,
      disabled: 1,
    })
  })
})

describe('503s are counted by the reason why the state is unknown', () => {
  type Asked = Pick<Replica, 'request'>

  const unavailable = async (replica: Asked) => {
    const { text } = await replica.request('/metrics', { headers: bearer(ADMIN_TOKEN) })
    return new Map(
      [...text.matchAll(/^assay_unavailable_total\{reason="(\w+)"\} (\d+)$/gm)].map(
        ([, reason = '', value]) => [reason, Number(value)] as const,
      ),
    )
  }

  /** The growth of each reason's count, and the number of 503s sent. */
  async function counted(replica: Asked, act: () => Promise<{ status: number }[]>) {
    const before = await unavailable(replica)
    const sent = (await act()).filter(({ status }) => status === 503).length
    const after = await unavailable(replica)
    const grown = [...after].map(([reason, value]) => [reason, value - before.get(reason)!] as const)
    return { sent, grown: Object.fromEntries(grown.filter(([, growth]) => growth > 0)) }
  }

  test('every reason has a series from the start', async () => {
    expect([...(await unavailable(assay)).keys()]).toEqual(Object.keys(UNAVAILABLE))
  })

  test('stale state: at every endpoint, each answer once', async () => {
    const customer = await assay.signUp()
    const { access_token: token } = await customer.session()
    const database = holding(world.db)
    const replica = await replicaOn(world, database.db)
    expect((await replica.verify(token)).status).toBe(200)
    const held = database.hold(POLL)
    void replica.changeFeed.poll()
    await held.has
    replica.clock.ahead.monotonic += 10_000
    const outage = await counted(replica, async () => [
      await replica.verify(token),
      await replica.request('/introspect', { headers: bearer(token) }),
      await replica.post('/introspect', { token }, bearer(customer.apiKey)),
      await replica.post('/revoke', { token }, bearer(customer.apiKey)),
      await replica.request('/api/auth/me', { headers: bearer(token) }),
      await replica.request('/readyz'),
    ])
    held.release()
    expect(outage).toEqual({ sent: 6, grown: { change_feed: 5, not_ready: 1 } })
  })

  test('a customer whose secrets cannot be decrypted', async () => {
    const customer = await assay.signUp()
    await world.admin.query('update assay.customers set sealed_data_key = $2 where id = $1', [
      customer.id,
      Buffer.alloc(150, 1),
    ])
    await publishCustomer(world, customer.id, [assay])
    const broken = await counted(assay, async () => [
      await assay.verify(customer.accessToken),
      await assay.introspect(customer.accessToken),
    ])
    expect(broken).toEqual({ sent: 2, grown: { broken_record: 2 } })
  })

  test('a database with a full disk', async () => {
    const customer = await assay.signUp()
    await world.admin.query(`create function assay.refuse() returns trigger language plpgsql as
      $$ begin raise exception using errcode = '53100'; end $$`)
    await world.admin.query(`create trigger refuse before insert on assay.audit_events
      for each row execute function assay.refuse()`)
    const full = await counted(assay, async () => [
      await customer.issue(),
      await assay.refresh(customer.refreshToken),
    ])
    await world.admin.query('drop trigger refuse on assay.audit_events')
    expect(full).toEqual({ sent: 2, grown: { database: 2 } })
  })
})

test('acts that take a number on the change feed are counted, and hardly wait when they are alone', async () => {
  const customer = await assay.signUp()
  const { access_token: token, session_id } = await customer.session()
  const acts = async () => {
    await assay.postForm('/revoke', { token }, bearer(customer.apiKey))
    await assay.request(`/api/sessions/${session_id}`, { method: 'DELETE', headers: bearer(customer.apiKey) })
    await assay.postJson('/api/secrets/rotate', {}, bearer(customer.accessToken))
    await assay.postJson('/api/subjects/revoke', { subject: 'ann' }, bearer(customer.apiKey))
    await assay.request('/api/sessions', { method: 'DELETE', headers: bearer(customer.accessToken) })
  }
  const before = await metric('assay_change_feed_lock_wait_seconds_sum')
  expect(await growth('assay_change_feed_lock_wait_seconds_count', {}, acts)).toBe(5)
  expect((await metric('assay_change_feed_lock_wait_seconds_sum')) - before).toBeLessThan(1)
  const issuing = () => Promise.all([customer.issue(), customer.session()])
  expect(await growth('assay_change_feed_lock_wait_seconds_count', {}, issuing)).toBe(0)
})

test('they show the age of the state and the entries in memory', async () => {
  const lonely = await makeWorld()
  try {
    const replica = await lonely.replica()
    const read = async (name: string) =>
      Number(new RegExp(`^${name} (\\S+)$`, 'm').exec((await replica.get('/metrics', ADMIN_TOKEN)).text)?.[1])
    const before = {
      polls: await read('assay_change_feed_polls_total'),
      customers: await read('assay_customers_cached'),
    }
    const customer = await replica.signUp()
    const { access_token: token } = await customer.session()
    await replica.verify(token)
    expect(await read('assay_customers_cached')).toBe(before.customers + 1)
    expect(await read('assay_revocations')).toBe(0)
    await replica.postForm('/revoke', { token }, bearer(customer.apiKey))
    expect(await read('assay_revocations')).toBe(1)
    await replica.changeFeed.poll()
    expect(await read('assay_change_feed_polls_total')).toBeGreaterThan(before.polls)
    expect(await read('assay_change_feed_rows_total')).toBeGreaterThanOrEqual(1)
    expect(await read('assay_change_feed_age_seconds')).toBeLessThan(3)
    replica.clock.skip(60_000)
    expect(await read('assay_change_feed_age_seconds')).toBeGreaterThanOrEqual(3)
  } finally {
    await lonely.stop()
  }
})

test('they show the pool: running calls, and the connections that they share', async () => {
  expect(await metric('assay_database_connections')).toBe(world.url === undefined ? 1 : 10)
  const waiting = world.db.query('select pg_sleep(0.3)')
  expect(await metric('assay_database_calls')).toBeGreaterThanOrEqual(1)
  await waiting
})

test('they contain no token, id, email or subject', async () => {
  const customer = await assay.signUp()
  const subject = `user-${randomBytes(6).toString('hex')}`
  const session = await customer.session({ subject })
  await assay.verify(session.access_token)
  await assay.introspect(session.refresh_token)
  await assay.request(`/api/sessions/${session.session_id}`, {
    method: 'DELETE',
    headers: bearer(customer.accessToken),
  })
  const { jti } = claimsOf(session.access_token)
  const seen = await text()
  for (const secret of [...Object.values(session), ...Object.values(customer), subject, jti, ADMIN_TOKEN])
    if (typeof secret === 'string' && secret.length > 6) expect(seen).not.toContain(secret)
})

test('a thousand unknown paths add no label', async () => {
  const anyRequest = async (i: number) => {
    const word = createHash('sha256').update(`${i}`).digest('hex').slice(0, 8)
    const paths = [`/${word}`, `/api/keys/${word}`, `/verify/${word}`, `/api/${word}?${word}=${word}`]
    const methods = ['GET', 'DELETE', 'POST', 'PUT', 'OPTIONS']
    const method = methods[i % methods.length]!
    await assay.request(paths[i % paths.length]!, {
      method,
      headers: { 'X-Request-Id': word, ...bearer(word) },
    })
  }
  const series = async () => (await samples()).map(({ name, labels }) => `${name} ${JSON.stringify(labels)}`)
  for (let i = 0; i < 20; i++) await anyRequest(i)
  // The first scrape is only counted in the next one.
  await series()
  const before = await series()
  for (let i = 20; i < 1_020; i++) await anyRequest(i)
  expect(await series()).toEqual(before)

  const routes = new Set([...assay.app.routes.map(({ path }) => path), 'none'])
  for (const { labels } of await samples()) {
    if (labels.route !== undefined) expect(routes).toContain(labels.route)
    if (labels.method !== undefined) expect(METHODS).toContain(labels.method)
    if (labels.status !== undefined) expect(labels.status).toMatch(/^[2-5]\d\d$/)
    if (labels.outcome !== undefined) expect(labels.outcome).toMatch(/^[a-z_]+$/)
  }
})
