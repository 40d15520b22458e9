import { afterAll, beforeAll, expect, test } from 'vitest'
import { bearer, type Customer, makeWorld, type Replica, type World } from '../support/world.ts'

/** The rows that a list or a count reads are limited, however many rows a customer has. */

let world: World
let assay: Replica
let customer: Customer

/** More rows than one statement reads. */
const MANY = 2_100

beforeAll(async () => {
  world = await makeWorld()
  assay = await world.replica()
})
afterAll(() => world.stop())

/** Creates ended sessions of a customer, all with future times. */
const addEndedSessions = (customerId: string) =>
  world.db.query(
    `insert into assay.sessions (customer_id, id, subject, scope, audience, access_ttl, customer_epoch, subject_epoch, gen,
       issued_at, rotated_at, key_version, access_until, expires_at, ends_at, revoked_at)
     select $1, lpad(translate(n::text, '0189', 'abcd'), 24, 'a'), 'user', '', '"a"', 300, 0, 0, 1, at, at, 1, at, at, at, at
     from generate_series(1, $2::int) as n, lateral (select assay.now() + n * interval '1 millisecond' as at) as made`,
    [customerId, MANY],
  )

/** Creates issue events of a customer, all with future times. */
const addIssued = (customerId: string) =>
  world.db.query(
    `insert into assay.audit_events (at, customer_id, type, actor, token_id)
     select assay.now() + n * interval '1 millisecond', $1, 'token.issued', 'api_key:x', lpad(n::text, 24, 'a')
     from generate_series(1, $2::int) as n`,
    [customerId, MANY],
  )

/** Reads all pages of a list; returns their sizes and items. */
async function walk(path: string, member: string, token: string) {
  const [sizes, listed]: [number[], Record<string, string>[]] = [[], []]
  let cursor = ''
  do {
    const { status, json } = await assay.get(`${path}${cursor && `&cursor=${cursor}`}`, token)
    expect(status).toBe(200)
    sizes.push(json[member].length)
    listed.push(...json[member])
    cursor = json.next_cursor ?? ''
  } while (cursor !== '')
  return { sizes, listed }
}

test('a page of live sessions stops after two thousand ended ones, and has a cursor to the next page', async () => {
  customer = await assay.signUp()
  await customer.session({ subject: 'live' })
  await addEndedSessions(customer.id)
  const { sizes, listed } = await walk('/api/sessions?limit=5', 'sessions', customer.accessToken)
  expect(sizes).toEqual([0, 2])
  expect(listed[0]).toMatchObject({ subject: 'live' })
  const ofSubject = await walk('/api/sessions?subject=live', 'sessions', customer.accessToken)
  expect(ofSubject.sizes).toEqual([1])
})

test('a page whose last session looked at is a live one does not end the list', async () => {
  const own = await assay.signUp()
  await addEndedSessions(own.id)
  // The live ones are the 2,000th from the top and the account's own, which is the last.
  await world.db.query(
    `update assay.sessions set revoked_at = null, ends_at = expires_at + interval '1 day', expires_at = expires_at + interval '1 day'
     where (customer_id, id) = (select customer_id, id from assay.sessions where customer_id = $1
       order by issued_at desc, id desc offset 1999 limit 1)`,
    [own.id],
  )
  expect((await walk('/api/sessions?limit=5', 'sessions', own.accessToken)).sizes).toEqual([1, 1])
})

test('a page whose last event looked at is of the type does not end the list', async () => {
  const own = await assay.signUp()
  await addIssued(own.id)
  await world.admin.query(
    `update assay.audit_events set type = 'customer.signed_up'
     where (at, id) = (select at, id from assay.audit_events where customer_id = $1 order by at desc, id desc offset 1999 limit 1)`,
    [own.id],
  )
  const path = '/api/audit?type=customer.signed_up&limit=5'
  expect((await walk(path, 'events', own.accessToken)).sizes).toEqual([1, 1])
})

test('a customer with more sessions than are counted is not told how many carry a version', async () => {
  const { json } = await assay.get('/api/secrets', customer.accessToken)
  const versions = json.secrets.map(({ use, version }: Record<string, unknown>) => `${use} ${version}`)
  expect(versions).toEqual(['access 1', 'refresh 1'])
  expect(json.secrets[1]).not.toHaveProperty('live_sessions')
})

test('a page of one event type stops after two thousand others, and has a cursor to the next page', async () => {
  const own = await assay.signUp()
  await addIssued(own.id)
  const path = '/api/audit?type=customer.signed_up&limit=5'
  const { sizes, listed } = await walk(path, 'events', own.accessToken)
  expect(sizes).toEqual([0, 1])
  expect(listed[0]).toMatchObject({ type: 'customer.signed_up' })
})

test('the effect of a rotation is counted over the newest two thousand sessions and marked as partial', async () => {
  const own = await assay.signUp()
  await addIssued(own.id)
  const asked = { now: true, dry_run: true }
  const { json } = await assay.postJson('/api/secrets/rotate', asked, bearer(own.accessToken))
  expect(json).toEqual({ would_end: { sessions: 1, tokens: 2_001, partial: true } })
})

test('all versions are listed, except that only the newest hundred retired ones are', async () => {
  const own = await assay.signUp()
  await world.db.query(
    `insert into assay.signing_keys (customer_id, use, version, state, alg, sealed_secret, replaced_at, retired_at)
     select customer_id, use, n, case n when 2 then 'previous' else 'retired' end, alg, sealed_secret, assay.now(),
       case when n <> 2 then assay.now() end
     from assay.signing_keys, generate_series(2, 300) as n where customer_id = $1`,
    [own.id],
  )
  const { json } = await assay.get('/api/secrets', own.accessToken)
  const versions = json.secrets
    .filter(({ use }: { use: string }) => use === 'access')
    .map(({ version }: { version: number }) => version)
  expect(versions).toEqual([...Array.from({ length: 100 }, (_, i) => 300 - i), 2, 1])
})
