import { afterAll, beforeAll, expect, test } from 'vitest'
import { sync } from '../support/plant.ts'
import {
  basic,
  bearer,
  type Customer,
  claimsOf,
  makeWorld,
  type Replica,
  type World,
} from '../support/world.ts'

let world: World
let assay: Replica
let other: Replica

beforeAll(async () => {
  world = await makeWorld()
  assay = await world.replica()
  other = await world.replica()
})
afterAll(() => world.stop())

interface Listed {
  id: string
  subject: string
}

const end = (secret: string, id: string, query = '', at = assay) =>
  at.request(`/api/sessions/${id}${query}`, { method: 'DELETE', headers: bearer(secret) })
const list = async (secret: string, query = ''): Promise<Listed[]> =>
  (await assay.get(`/api/sessions${query}`, secret)).json.sessions
const idsOf = (sessions: Listed[]) => sessions.map(({ id }) => id)

/** The ids on all pages in order, until a page has no cursor. */
async function walk(secret: string, query: string): Promise<{ ids: string[]; pages: number }> {
  const ids: string[] = []
  let pages = 0
  for (let cursor = ''; pages < 1_000; pages++) {
    const { status, json } = await assay.get(`/api/sessions?${query}${cursor && `&cursor=${cursor}`}`, secret)
    expect(status).toBe(200)
    ids.push(...idsOf(json.sessions))
    if (json.next_cursor === undefined) return { ids, pages: pages + 1 }
    cursor = json.next_cursor
  }
  throw new Error('the pages do not end')
}

test('a session is listed with its scopes and its expiry, and without its tokens', async () => {
  const customer = await assay.signUp()
  const body = { subject: 'ada', scope: 'read write', audience: ['a', 'b'], refresh: true }
  const headers = { ...bearer(customer.apiKey), 'User-Agent': 'phone' }
  const issued = (await assay.postJson('/issue', body, headers)).json
  await assay.refresh(issued.refresh_token)
  const { json, text } = await assay.get('/api/sessions?subject=ada', customer.accessToken)
  expect(json.sessions).toEqual([
    {
      id: issued.session_id,
      subject: 'ada',
      scope: 'read write',
      audience: ['a', 'b'],
      generation: 2,
      created_at: expect.any(String),
      refreshed_at: expect.any(String),
      expires_at: expect.any(String),
      ends_at: expect.any(String),
      ip: expect.stringMatching(/^10\./),
      user_agent: 'phone',
    },
  ])
  const [session] = json.sessions
  const days = (from: string, to: string) => (Date.parse(to) - Date.parse(from)) / 86_400_000
  expect(days(session.refreshed_at, session.expires_at)).toBe(30)
  expect(days(session.created_at, session.ends_at)).toBe(90)
  expect(text).not.toContain(issued.refresh_token.split('.')[2])
})

test('a cursor pages through all of 120 sessions, newest first, without losing or repeating one', async () => {
  const customer = await assay.signUp()
  const all = [claimsOf(customer.accessToken).sid]
  for (let i = 0; i < 120; i++) all.push((await customer.session({ subject: `user-${i}` })).session_id)
  const { ids, pages } = await walk(customer.accessToken, '')
  expect(pages).toBe(3)
  // For the last assertion: two sessions may have begun in the same millisecond.
  expect(all.slice(-20)).toContain(ids[0])
  expect(ids.toSorted()).toEqual(all.toSorted())
  // Ids distinguish sessions that began in the same millisecond.
  await world.admin.query(
    `update assay.sessions set issued_at = date_trunc('hour', issued_at) where customer_id = $1`,
    [customer.id],
  )
  for (const limit of [1, 7, 11, 100]) {
    const { ids, pages } = await walk(customer.accessToken, `limit=${limit}`)
    expect(ids).toHaveLength(121)
    expect(ids.toSorted()).toEqual(all.toSorted())
    expect(pages).toBe(Math.ceil(121 / limit))
  }
})

test('sessions that begin and end while paging do not disturb it', async () => {
  const customer = await assay.signUp()
  const started: string[] = []
  for (let i = 0; i < 6; i++) started.push((await customer.session()).session_id)
  const first = (await assay.get('/api/sessions?subject=user-1&limit=3', customer.accessToken)).json
  await customer.session()
  expect((await end(customer.accessToken, first.sessions[2].id)).status).toBe(204)
  const rest = `?subject=user-1&limit=3&cursor=${first.next_cursor}`
  const [shown, left] = [idsOf(first.sessions), idsOf(await list(customer.accessToken, rest))]
  expect([...shown, ...left].toSorted()).toEqual(started.toSorted())
})

test('sessions can be listed by subject, whatever its name', async () => {
  const customer = await assay.signUp()
  expect(await assay.get('/api/sessions?subject=', customer.accessToken)).toMatchObject({ status: 400 })
  const subjects = ['ada', 'Ada', 'ada ', 'a%', 'a_a', '名前', "o'brien", 'a&limit=1', '+49 30 1']
  for (const subject of subjects) await customer.session({ subject })
  for (const subject of subjects) {
    const found = await list(customer.accessToken, `?subject=${encodeURIComponent(subject)}`)
    expect(found.map(session => session.subject)).toEqual([subject])
  }
  expect(await list(customer.accessToken, '?subject=nobody')).toEqual([])
})

test.each([
  'limit=0',
  'limit=101',
  'limit=-1',
  'limit=1e1',
  'limit=x',
  'limit=1&limit=2',
  'cursor=garbage',
  'cursor=!!!!',
  `cursor=${Buffer.from('12 ab cd').toString('base64url')}`,
  'offset=10',
  'subject=a&subject=b',
])('a request for the list with %s is refused', async query => {
  const { accessToken } = await assay.signUp()
  const { status, json } = await assay.get(`/api/sessions?${query}`, accessToken)
  expect([status, json.error]).toEqual([400, 'invalid_request'])
})

test('ending a session refuses its tokens at once on every replica, and affects no others', async () => {
  const customer = await assay.signUp()
  const [gone, kept] = [await customer.session(), await customer.session()]
  const later = (await assay.refresh(gone.refresh_token)).json
  for (const token of [gone.access_token, later.access_token])
    expect((await other.verify(token)).status).toBe(200)
  expect((await end(customer.accessToken, gone.session_id)).status).toBe(204)
  for (const token of [gone.access_token, later.access_token])
    expect((await assay.verify(token)).status).toBe(401)
  expect((await assay.refresh(later.refresh_token)).json.error).toBe('invalid_grant')
  await sync(other)
  expect((await other.verify(gone.access_token)).status).toBe(401)
  expect((await other.verify(kept.access_token)).status).toBe(200)
  expect((await assay.refresh(kept.refresh_token)).status).toBe(200)
  expect(idsOf(await list(customer.accessToken))).not.toContain(gone.session_id)
  expect((await end(customer.accessToken, gone.session_id)).status).toBe(404)
})

test('with wait=all an ended session is refused on every replica once the answer has arrived', async () => {
  const customer = await assay.signUp()
  const session = await customer.session()
  expect((await other.verify(session.access_token)).status).toBe(200)
  expect((await end(customer.accessToken, session.session_id, '?wait=all')).status).toBe(204)
  expect((await other.verify(session.access_token)).status).toBe(401)
})

test('a misspelt wait is refused before anything is ended', async () => {
  const customer = await assay.signUp()
  const session = await customer.session()
  const { status, json } = await end(customer.accessToken, session.session_id, '?wait=al')
  expect([status, json.error]).toEqual([400, 'invalid_request'])
  expect((await assay.verify(session.access_token)).status).toBe(200)
})

test('a customer can end the session that it uses for the request', async () => {
  const { accessToken } = await assay.signUp()
  expect((await end(accessToken, claimsOf(accessToken).sid)).status).toBe(204)
  expect((await assay.get('/api/sessions', accessToken)).status).toBe(401)
})

test('expired sessions are not listed', async () => {
  const customer = await assay.signUp()
  const idle = await customer.session()
  const used = await customer.session()
  await world.advance(20 * 86_400_000)
  expect((await assay.refresh(used.refresh_token)).status).toBe(200)
  await world.advance(11 * 86_400_000)
  const ids = idsOf(await list(customer.apiKey))
  expect(ids).toEqual([used.session_id])
  expect(ids).not.toContain(idle.session_id)
})

test("another customer's sessions can be neither seen nor ended", async () => {
  const victim = await assay.signUp()
  const session = await victim.session({ subject: 'shared-name' })
  const stranger = await assay.signUp()
  for (const secret of [stranger.accessToken, stranger.apiKey]) {
    expect(await list(secret, '?subject=shared-name')).toEqual([])
    expect((await end(secret, session.session_id)).status).toBe(404)
  }
  expect((await assay.verify(session.access_token)).status).toBe(200)
  expect((await assay.refresh(session.refresh_token)).status).toBe(200)
})

/** A key of the customer with these scopes. */
const keyWith = async (customer: Customer, scopes: string[]): Promise<string> =>
  (await assay.postJson('/api/keys', { scopes }, bearer(customer.accessToken))).json.api_key

test('an API key can manage sessions if it has the scope for it, as Bearer or Basic', async () => {
  const customer = await assay.signUp()
  const session = await customer.session()
  const key = await keyWith(customer, ['assay:sessions'])
  const headers = { Authorization: basic(customer.id, key) }
  const listed = await assay.request('/api/sessions?subject=user-1', { headers })
  expect(idsOf(listed.json.sessions)).toEqual([session.session_id])
  expect((await end(key, session.session_id)).status).toBe(204)
  expect((await assay.verify(session.access_token)).status).toBe(401)
})

test('an API key without that scope is refused, with an error that names the scope', async () => {
  const customer = await assay.signUp()
  const session = await customer.session()
  for (const scopes of [['*'], ['read'], []]) {
    const key = await keyWith(customer, scopes)
    for (const answer of [await assay.get('/api/sessions', key), await end(key, session.session_id)]) {
      expect([answer.status, answer.json.error]).toEqual([403, 'insufficient_scope'])
      expect(answer.json.detail).toContain('assay:sessions')
    }
  }
  expect((await assay.verify(session.access_token)).status).toBe(200)
})
