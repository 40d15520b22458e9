import { afterAll, beforeAll, expect, test } from 'vitest'
import { listAllEvents } from '../../db/queries/audit.ts'
import { AUDIT_TYPES } from '../../server/audit/audit.ts'
import { membersAt } from '../support/openapi.ts'
import { ALICE, bearer, type Customer, makeWorld, type Replica, type World } from '../support/world.ts'

let world: World
let assay: Replica

beforeAll(async () => {
  world = await makeWorld()
  assay = await world.replica()
})
afterAll(() => world.stop())

interface Event {
  id: string
  at: string
  type: string
  subject?: string
}

const ask = (customer: Customer, query = '') => assay.get(`/api/audit${query}`, customer.accessToken)
const list = async (customer: Customer, query = ''): Promise<Event[]> =>
  (await ask(customer, query)).json.events
const typesOf = (events: Event[]) => events.map(({ type }) => type)

async function walk(customer: Customer, query: string): Promise<Event[]> {
  const events: Event[] = []
  for (let cursor = ''; ; ) {
    const { json } = await ask(customer, `?${query}${cursor && `&cursor=${cursor}`}`)
    events.push(...json.events)
    if (json.next_cursor === undefined) return events
    expect(events.length).toBeLessThan(1_000)
    cursor = json.next_cursor
  }
}

test('events are listed newest first', async () => {
  const customer = await assay.signUp()
  await customer.issue()
  const { refresh_token } = await customer.session()
  await assay.refresh(refresh_token)
  const events = await list(customer)
  expect(typesOf(events)).toEqual(['session.refreshed', 'token.issued', 'token.issued', 'customer.signed_up'])
  expect(events.map(({ at }) => at)).toEqual(
    events
      .map(({ at }) => at)
      .toSorted()
      .toReversed(),
  )
})

test('a customer sees that an operator acted, but not the address; operators see both', async () => {
  const customer = await assay.signUp()
  const from = { ip: '203.0.113.99', 'User-Agent': 'operator-agent/1.0' }
  const path = `/admin/customers/${customer.id}`
  const { ip, ...headers } = { ...from, ...bearer(ALICE), 'Content-Type': 'application/json' }
  const body = JSON.stringify({ subject: 'user-1' })
  await assay.request(`${path}/subjects/revoke`, { method: 'POST', ip, headers, body })
  const [own] = await list(customer, '?type=subject.revoked')
  expect(own).toMatchObject({ actor: 'operator:alice', subject: 'user-1' })
  expect(JSON.stringify(own)).not.toMatch(/203\.0|operator-agent/)
  const [seen] = (await assay.get(`${path}/audit?type=subject.revoked`, ALICE)).json.events
  expect(seen).toMatchObject({ ip, user_agent: 'operator-agent/1.0' })
  const [signUp] = await list(customer, '?type=customer.signed_up')
  expect(signUp).toHaveProperty('ip')
})

test('events can be filtered by type', async () => {
  const customer = await assay.signUp()
  await customer.issue()
  expect(typesOf(await list(customer, '?type=token.issued'))).toEqual(['token.issued'])
  expect(await list(customer, '?type=session.revoked')).toEqual([])
})

test('an unknown type is refused with a list of the known ones', async () => {
  const customer = await assay.signUp()
  for (const type of ['token.issue', 'planted', 'TOKEN.ISSUED', "'"]) {
    const { status, json } = await ask(customer, `?type=${encodeURIComponent(type)}`)
    expect([status, json.error]).toEqual([400, 'invalid_request'])
    for (const known of AUDIT_TYPES) expect(json.detail).toContain(known)
  }
  expect(membersAt('components', 'schemas', 'AuditType').enum).toEqual(AUDIT_TYPES)
})

test('events can be filtered by time: from is inclusive, to is exclusive', async () => {
  const customer = await assay.signUp()
  const at: string[] = []
  for (const subject of ['one', 'two', 'three']) {
    await world.advance(60_000)
    await customer.issue({ subject })
    at.push((await list(customer, '?limit=1'))[0]!.at)
  }
  const [, two = '', three = ''] = at
  const subjects = async (query: string) =>
    (await list(customer, `?type=token.issued${query}`)).map(({ subject }) => subject)
  expect(await subjects(`&from=${two}`)).toEqual(['three', 'two'])
  expect(await subjects(`&to=${two}`)).toEqual(['one'])
  expect(await subjects(`&from=${two}&to=${three}`)).toEqual(['two'])
  const offset = new Date(Date.parse(two) + 7_200_000).toISOString().replace('Z', '+02:00')
  expect(await subjects(`&from=${encodeURIComponent(offset)}&to=${three}`)).toEqual(['two'])
  expect(await subjects(`&from=${two.toLowerCase()}&to=${three.replace('T', 't')}`)).toEqual(['two'])
  expect(await subjects(`&from=${three}&to=${two}`)).toEqual([])
})

test('a cursor pages through all events without losing or repeating one', async () => {
  const customer = await assay.signUp()
  for (let i = 0; i < 30; i++) await customer.issue({ subject: `user-${i}` })
  const whole = await walk(customer, 'limit=100')
  expect(whole).toHaveLength(31)
  for (const limit of [1, 5, 8, 30, 31]) expect(await walk(customer, `limit=${limit}`)).toEqual(whole)
  expect(await walk(customer, 'type=token.issued&limit=7')).toEqual(whole.slice(0, 30))
  const { at } = whole[12]!
  const older = whole.filter(event => event.at < at)
  expect(await walk(customer, `to=${at}&limit=4`)).toEqual(older)
  const { json } = await ask(customer, '?limit=2')
  expect(await list(customer, `?to=${at}&cursor=${json.next_cursor}&limit=100`)).toEqual(older)
})

test('old events are found without reading newer ones', async () => {
  await world.admin.query(
    `insert into assay.audit_events (at, customer_id, type, actor)
    select assay.now() - n * interval '1 second', null, 'token.issued', 'api_key:x' from generate_series(1, 30000) as n`,
  )
  let plans: { 'QUERY PLAN': [{ Plan: Record<string, number> }] }[] = []
  const explained = {
    async values(text: string, params?: readonly unknown[]) {
      plans = await world.admin.query(`explain (analyze, buffers, format json) ${text}`, params)
      return []
    },
  }
  const blocks = async (to: Date | undefined) => {
    const span = { type: undefined, from: undefined, beforeAt: undefined, beforeId: undefined, limit: 10 }
    await listAllEvents(explained, { ...span, to })
    const [{ Plan }] = plans[0]!['QUERY PLAN']
    return Plan['Shared Hit Blocks']! + Plan['Shared Read Blocks']!
  }
  const newest = await blocks(undefined)
  expect(await blocks(new Date(assay.changeFeed.now() - 29_000_000))).toBeLessThan(3 * newest)
})

test('a cursor distinguishes events of the same millisecond', async () => {
  const customer = await assay.signUp()
  await world.admin.query(
    `insert into assay.audit_events (at, customer_id, type, actor)
    select assay.now() - interval '1 second', $1, 'customer.login_failed', 'anonymous'
    from generate_series(1, 20), (select assay.now()) as once`,
    [customer.id],
  )
  await world.admin.query(
    `update assay.audit_events set at = (select min(at) from assay.audit_events where customer_id = $1)
    where customer_id = $1 and type = 'customer.login_failed'`,
    [customer.id],
  )
  const events = await walk(customer, 'type=customer.login_failed&limit=3')
  expect(new Set(events.map(({ at }) => at)).size).toBe(1)
  expect(new Set(events.map(({ id }) => id)).size).toBe(20)
})

test.each([
  'limit=0',
  'limit=101',
  'limit=ten',
  'cursor=garbage',
  `cursor=${Buffer.from('1700000000000 abc').toString('base64url')}`,
  'from=yesterday',
  'from=1700000000',
  'to=2026-01-31',
  'to=2026-02-30T00:00:00Z',
  'from=2026-01-01T00:00:00',
  'type=a&type=b',
  'customer=other',
])('a request for events with %s is refused', async query => {
  const customer = await assay.signUp()
  const { status, json } = await ask(customer, `?${query}`)
  expect([status, json.error]).toEqual([400, 'invalid_request'])
})

test('a customer sees its own events only', async () => {
  const [one, two] = [await assay.signUp(), await assay.signUp()]
  await two.issue({ subject: 'a user of two' })
  await assay.postJson('/api/auth/login', { email: 'unknown@example.com', password: 'some password' })
  expect(typesOf(await list(one))).toEqual(['customer.signed_up'])
  const { text } = await ask(one, '?limit=100')
  expect(text).not.toContain(two.id)
  // A cursor is a position in time and grants no access to events.
  const cursor = (await ask(two, '?limit=1')).json.next_cursor
  expect((await ask(one, `?cursor=${cursor}`)).text).not.toContain(two.id)
})

test('a refused act leaves no event that claims it happened', async () => {
  const customer = await assay.signUp()
  const before = await list(customer)
  await customer.issue({ scope: 'assay:account' })
  await assay.postForm('/revoke', { token: 'garbage' }, bearer(customer.apiKey))
  await assay.refresh('garbage')
  await assay.request('/api/sessions/unknown', { method: 'DELETE', headers: bearer(customer.accessToken) })
  await assay.request('/api/keys/unknown', { method: 'DELETE', headers: bearer(customer.accessToken) })
  expect(await list(customer)).toEqual(before)
})
