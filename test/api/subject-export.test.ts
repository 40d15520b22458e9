import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import {
  ALICE,
  bearer,
  type Customer,
  makeWorld,
  READER,
  type Replica,
  type World,
} from '../support/world.ts'

/** The export of everything that is stored about a subject. */

let world: World
let assay: Replica

beforeAll(async () => {
  world = await makeWorld()
  assay = await world.replica()
})
afterAll(() => world.stop())

const asOwner = ({ accessToken }: Customer) => bearer(accessToken)
const ask = (body: object, authorization: Record<string, string>, headers: Record<string, string> = {}) =>
  assay.postJson('/api/subjects/export', body, { ...authorization, ...headers })
const askAsOperator = ({ id }: Customer, body: object, token = ALICE) =>
  assay.postJson(`/admin/customers/${id}/subjects/export`, body, bearer(token))

// biome-ignore lint/suspicious/noExplicitAny: a test says what it expects to be there.
type Page = any

/** All pages of an export. */
async function pagesOf(call: (cursor: string | undefined) => Promise<{ status: number; json: Page }>) {
  const pages: Page[] = []
  for (let cursor: string | undefined, more = true; more; ) {
    const { status, json } = await call(cursor)
    expect(status).toBe(200)
    pages.push(json)
    cursor = json.next_cursor
    more = cursor !== undefined
  }
  return pages
}

async function exportOf(customer: Customer, subject: string) {
  const pages = await pagesOf(cursor => ask({ subject, cursor }, asOwner(customer)))
  return {
    ...pages[0],
    sessions: pages.flatMap(page => page.sessions),
    events: pages.flatMap(page => page.events),
    pages: pages.length,
  }
}

const auditOf = async ({ id }: Customer) =>
  (await assay.get(`/admin/audit?customer=${id}&type=subject.exported&limit=100`, ALICE)).json.events

test('a session is exported with its address, user agent, times, scope and claims', async () => {
  const customer = await assay.signUp()
  const started = {
    subject: 'ann',
    scope: 'read',
    refresh: true,
    claims: { plan: 'göld' },
    audience: 'https://a.example',
  }
  const { json: issued } = await assay.request('/issue', {
    method: 'POST',
    headers: { ...bearer(customer.apiKey), 'Content-Type': 'application/json', 'User-Agent': 'browser/1' },
    body: JSON.stringify(started),
    ip: '203.0.113.9',
  })
  await assay.refresh(issued.refresh_token)
  const { sessions, exported_at } = await exportOf(customer, 'ann')
  expect(sessions).toEqual([
    {
      id: issued.session_id,
      scope: 'read',
      audience: 'https://a.example',
      claims: { plan: 'göld' },
      access_token_ttl: 300,
      customer_epoch: 0,
      subject_epoch: 0,
      generation: 2,
      key_version: 1,
      previous_key_version: 1,
      created_at: expect.any(String),
      rotated_at: expect.any(String),
      previously_rotated_at: expect.any(String),
      access_until: expect.any(String),
      expires_at: expect.any(String),
      ends_at: expect.any(String),
      ip: '203.0.113.9',
      user_agent: 'browser/1',
    },
  ])
  expect(sessions[0].created_at <= exported_at).toBe(true)
})

test('every column of a session is in the export, so that a new one is not forgotten', async () => {
  const columns = await world.admin.query<{ column_name: string }>(
    `select column_name from information_schema.columns where table_schema = 'assay' and table_name = 'sessions'`,
  )
  const customer = await assay.signUp()
  await customer.session({ subject: 'ann' })
  await world.admin.query(
    `update assay.sessions set prev_rotated_at = issued_at, confirmed_at = issued_at, renewed_at = issued_at,
      prev_key_version = 1, revoked_at = issued_at, claims = '{"a":1}', ip = '::1', user_agent = 'x' where customer_id = $1`,
    [customer.id],
  )
  const { sessions } = await exportOf(customer, 'ann')
  // customer_id and subject are in the document itself.
  expect(Object.keys(sessions[0])).toHaveLength(columns.length - 2)
})

test('sessions that have ended are exported too, with the time of their end', async () => {
  const customer = await assay.signUp()
  const { session_id } = await customer.session({ subject: 'ann' })
  await assay.request(`/api/sessions/${session_id}`, { method: 'DELETE', headers: asOwner(customer) })
  const { sessions } = await exportOf(customer, 'ann')
  expect(sessions).toMatchObject([{ id: session_id, revoked_at: expect.any(String) }])
})

test('a revocation of the subject is exported, and there is none before it', async () => {
  const customer = await assay.signUp()
  await customer.session({ subject: 'ann' })
  expect(await exportOf(customer, 'ann')).not.toHaveProperty('revocation')
  await assay.postJson('/api/subjects/revoke', { subject: 'ann' }, bearer(customer.apiKey))
  const { revocation } = await exportOf(customer, 'ann')
  expect(revocation).toEqual({
    epoch: expect.any(Number),
    revoked_at: expect.any(String),
    kept_until: expect.any(String),
  })
  expect(revocation.epoch).toBeGreaterThan(0)
})

test('the events that name the subject are exported, and not those of another one', async () => {
  const customer = await assay.signUp()
  const { refresh_token } = await customer.session({ subject: 'ann' })
  await customer.session({ subject: 'bob' })
  await customer.issue({ subject: 'ann' })
  await assay.refresh(refresh_token)
  await assay.postJson('/api/subjects/revoke', { subject: 'ann' }, bearer(customer.apiKey))
  const { events, sessions } = await exportOf(customer, 'ann')
  const types = events.map(({ type }: { type: string }) => type)
  expect(types).toEqual(['subject.revoked', 'session.refreshed', 'token.issued', 'token.issued'])
  expect(new Set(events.map(({ subject }: { subject: string }) => subject))).toEqual(new Set(['ann']))
  expect(sessions).toHaveLength(1)
  expect(JSON.stringify({ events, sessions })).not.toContain('bob')
})

test('an export holds the earlier exports, and ends although it is audited itself', async () => {
  const customer = await assay.signUp()
  await exportOf(customer, 'ann')
  const { events } = await exportOf(customer, 'ann')
  expect(events.map(({ type, detail }: Page) => `${type} ${detail.part}`)).toEqual([
    'subject.exported events',
    'subject.exported sessions',
  ])
})

test('an event of the millisecond in which the export began is exported', async () => {
  const customer = await assay.signUp()
  await customer.session({ subject: 'ann' })
  const { json: first } = await ask({ subject: 'ann' }, asOwner(customer))
  await world.admin.query(
    `update assay.audit_events set at = $2 where customer_id = $1 and type = 'token.issued'`,
    [customer.id, first.exported_at],
  )
  const { json: second } = await ask({ subject: 'ann', cursor: first.next_cursor }, asOwner(customer))
  expect(second.events.map(({ type }: Page) => type)).toEqual(['token.issued'])
})

test('each page is audited with who read it, and its first page as such', async () => {
  const customer = await assay.signUp()
  await pagesOf(cursor => askAsOperator(customer, { subject: 'ann', cursor }))
  const events = await auditOf(customer)
  expect(events.map(({ actor, subject, detail }: Page) => ({ actor, subject, detail }))).toEqual([
    { actor: 'operator:alice', subject: 'ann', detail: { part: 'events', first: false } },
    { actor: 'operator:alice', subject: 'ann', detail: { part: 'sessions', first: true } },
  ])
})

test('a customer does not see where an operator was, and an operator does', async () => {
  const customer = await assay.signUp()
  await askAsOperator(customer, { subject: 'ann' })
  const [seen] = (await exportOf(customer, 'ann')).events
  expect(seen).toMatchObject({ actor: 'operator:alice' })
  expect(seen).not.toHaveProperty('ip')
  const pages = await pagesOf(cursor => askAsOperator(customer, { subject: 'ann', cursor }))
  expect(pages.flatMap(({ events }) => events).at(-1)).toHaveProperty('ip')
})

describe('attacked', () => {
  test('a customer exports nothing of another customer, with the subject or the cursor of that one', async () => {
    const [ann, eve] = [await assay.signUp(), await assay.signUp()]
    await ann.session({ subject: 'user' })
    const { json } = await ask({ subject: 'user' }, asOwner(ann))
    for (const cursor of [undefined, json.next_cursor]) {
      const answer = await ask({ subject: 'user', cursor }, asOwner(eve))
      expect(answer.json).toMatchObject({ customer_id: eve.id, sessions: [] })
      expect(answer.text).not.toContain(ann.id)
    }
    const other = await assay.postJson(
      `/admin/customers/${ann.id}/subjects/export`,
      { subject: 'user' },
      asOwner(eve),
    )
    expect(other.status).toBe(401)
  })

  test('an API key may not export, even with the scope for sessions: it has no right to the audit', async () => {
    const customer = await assay.signUp()
    const { json } = await assay.postJson('/api/keys', { scopes: ['assay:sessions'] }, asOwner(customer))
    for (const key of [json.api_key, customer.apiKey])
      expect((await ask({ subject: 'ann' }, bearer(key))).status).toBe(401)
    expect(await auditOf(customer)).toEqual([])
  })

  test('an operator that only reads may not export, because an export is audited', async () => {
    const customer = await assay.signUp()
    expect((await askAsOperator(customer, { subject: 'ann' }, READER)).status).toBe(403)
    expect(await auditOf(customer)).toEqual([])
  })

  test('no cursor avoids the audit', async () => {
    const customer = await assay.signUp()
    const cursor = `e${Buffer.from('9999999999999 1').toString('base64url')}`
    expect((await ask({ subject: 'ann', cursor }, asOwner(customer))).status).toBe(200)
    expect(await auditOf(customer)).toHaveLength(1)
  })

  test.each([
    {},
    { subject: '' },
    { subject: 'a\nb' },
    { subject: 'x'.repeat(256) },
    { subject: ['ann'] },
    { subject: 'ann', cursor: '' },
    { subject: 'ann', cursor: 'x' },
    { subject: 'ann', cursor: 'e' },
    { subject: 'ann', cursor: `x${Buffer.from('1 1').toString('base64url')}` },
    { subject: 'ann', cursor: `e${Buffer.from('1 abc').toString('base64url')}` },
    { subject: 'ann', cursor: 'e'.repeat(121) },
    { subject: 'ann', more: 1 },
  ])('%j is refused, and not audited', async body => {
    const customer = await assay.signUp()
    expect((await ask(body, asOwner(customer))).status).toBe(400)
    expect(await auditOf(customer)).toEqual([])
  })

  test('a customer may read 300 pages in a minute, and an operator more', async () => {
    const customer = await assay.signUp()
    const statuses: number[] = []
    for (let i = 0; i < 301; i++) statuses.push((await ask({ subject: 'ann' }, asOwner(customer))).status)
    expect(statuses.slice(0, 300)).toEqual(Array(300).fill(200))
    expect(statuses.at(-1)).toBe(429)
    expect((await askAsOperator(customer, { subject: 'ann' })).status).toBe(200)
  })
})

describe('of a customer with many rows', () => {
  const SESSIONS = 1_100
  const EVENTS = 21_000
  let customer: Customer

  beforeAll(async () => {
    customer = await assay.signUp()
    await world.admin.query(
      `insert into assay.sessions (customer_id, id, subject, scope, audience, access_ttl, customer_epoch, subject_epoch, gen,
         issued_at, rotated_at, key_version, access_until, expires_at, ends_at)
       select $1, lpad(translate(n::text, '0189', 'abcd'), 24, 'a'), 'ann', '', '"a"', 300, 0, 0, 1, at, at, 1, at, at, at
       from generate_series(1, $2::int) as n, lateral (select assay.now() - n % 7 * interval '1 second' as at) as made`,
      [customer.id, SESSIONS],
    )
    await world.admin.query(
      `insert into assay.audit_events (at, customer_id, type, actor, subject)
       select assay.now() - n * interval '1 millisecond', $1, 'token.issued', 'api_key:x',
         case when n % 20 = 0 then 'ann' else 'bob' end
       from generate_series(1, $2::int) as n`,
      [customer.id, EVENTS],
    )
  })

  test('every session and event is there once, in pages of 500 rows at most', async () => {
    const pages = await pagesOf(cursor => askAsOperator(customer, { subject: 'ann', cursor }))
    const sizes = (list: 'sessions' | 'events') =>
      pages.map(page => page[list].length).filter(size => size > 0)
    expect(sizes('sessions')).toEqual([500, 500, 100])
    expect(Math.max(...sizes('events'))).toBeLessThanOrEqual(500)
    const rows = pages.flatMap(({ sessions, events }) => [...sessions, ...events])
    expect(new Set(rows.map(({ id }) => id)).size).toBe(rows.length)
    // The first two pages of sessions are events that the later ones show.
    expect(rows.length).toBe(SESSIONS + EVENTS / 20 + 2)
  })

  test('a page looks at 10,000 events, and says where the next one begins', async () => {
    const pages = await pagesOf(cursor => askAsOperator(customer, { subject: 'nobody', cursor }))
    expect(pages.map(({ events }) => events.length)).toEqual([0, 0, 0, 0])
  })
})
