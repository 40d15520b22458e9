import { afterAll, beforeAll, expect, test } from 'vitest'
import { forgetBatches } from '../support/forget-batches.ts'
import { holding, named, replicaOn } from '../support/holding.ts'
import {
  basic,
  bearer,
  type Customer,
  makeWorld,
  type Replica,
  SERVICE,
  type Tokens,
  type World,
} from '../support/world.ts'

let world: World
let assay: Replica
let customer: Customer
let tokens: Tokens

beforeAll(async () => {
  world = await makeWorld()
  assay = await world.replica()
  customer = await assay.signUp()
  tokens = await customer.session()
})
afterAll(() => world.stop())

const SERVER = { Authorization: basic(SERVICE.id, SERVICE.secret) }

const batch = (list: unknown, headers: Record<string, string> = SERVER, replica = assay) =>
  replica.postJson('/introspect/batch', { tokens: list }, headers)

test('up to a hundred tokens are answered in order, each as it would be alone', async () => {
  const { access_token: second } = await customer.session({ subject: 'user-2' })
  const cycle = [tokens.access_token, 'garbage', second, tokens.refresh_token, '']
  const list = Array.from({ length: 100 }, (_, i) => cycle[i % cycle.length]!)
  const { status, headers, json } = await batch(list)
  expect(status).toBe(200)
  expect(headers.get('cache-control')).toBe('no-store')
  const [first, other] = [await assay.introspect(tokens.access_token), await assay.introspect(second)]
  const inactive = { active: false }
  const expected = [first.json, inactive, other.json, inactive, inactive]
  expect(json).toEqual({ tokens: list.map((_, i) => expected[i % expected.length]) })
})

test('an empty list gets an empty answer', async () => {
  expect((await batch([])).json).toEqual({ tokens: [] })
})

test('an API key sees only tokens of its own customer, access and refresh', async () => {
  const stranger = await assay.signUp()
  const list = [stranger.accessToken, tokens.access_token, tokens.refresh_token, stranger.refreshToken]
  const { json } = await batch(list, bearer(customer.apiKey))
  expect(json.tokens.map((each: { active: boolean }) => each.active)).toEqual([false, true, true, false])
  expect(json.tokens[0]).toEqual({ active: false })
})

test('a hundred and one tokens, or anything but a list of strings, are refused', async () => {
  const wrong = [Array(101).fill('x'), 'x', [1], [null], [['x']], { 0: 'x', length: 1 }, undefined]
  for (const list of wrong) {
    const { status, json } = await batch(list)
    expect([status, json.error]).toEqual([400, 'invalid_request'])
  }
  expect((await assay.postForm('/introspect/batch', { tokens: 'x' }, SERVER)).status).toBe(400)
  expect((await assay.postJson('/introspect/batch', { tokens: [], more: 1 }, SERVER)).status).toBe(400)
})

test('a batch may have 1 MiB, and not a byte more', async () => {
  const empty = JSON.stringify({ tokens: [''] }).length
  const of = (bytes: number) => batch(['x'.repeat(bytes - empty)])
  expect((await of(1024 * 1024)).json).toEqual({ tokens: [{ active: false }] })
  const { status, json } = await of(1024 * 1024 + 1)
  expect([status, json.error]).toEqual([413, 'invalid_request'])
})

const MANY = 500_000
const COSTLY: [name: string, body: string][] = [
  ['half a million numbers and an escape', `{"tokens":[${'1,'.repeat(MANY)}"\\\\"]}`],
  ['half a million brackets', '['.repeat(MANY) + ']'.repeat(MANY)],
  ['a hundred thousand members', `{${Array.from({ length: 100_000 }, (_, i) => `"${i}":1`)}}`],
]

test.each(COSTLY)('a batch with %s is refused before it is parsed', async (_, body) => {
  const headers = { ...SERVER, 'Content-Type': 'application/json' }
  const { status, json } = await assay.request('/introspect/batch', { method: 'POST', headers, body })
  expect([status, json.error]).toEqual([400, 'invalid_request'])
  expect(json.error_description).toMatch(/more than 2000 names and values|deeper than 32 levels/)
})

test('the length of a list is checked before its elements', async () => {
  const { json } = await batch(Array(1_900).fill(1))
  expect(json.error_description).toBe('tokens: at most 100')
})

test('H18 a batch needs credentials, which are checked before it is read', async () => {
  for (const headers of [{}, bearer('garbage'), bearer(tokens.access_token)]) {
    const { status, json } = await batch([tokens.access_token], headers as Record<string, string>)
    expect([status, json.error]).toEqual([401, 'invalid_client'])
    expect((await batch('x', headers as Record<string, string>)).status).toBe(401)
  }
})

test('a token that is repeated in a batch gets the same answer each time, while it is revoked', async () => {
  // A replica without cached customers has to wait for the record in the middle of its answer.
  const cold = await world.replica()
  const { access_token: token } = await customer.session()
  const asked = batch(Array(100).fill(token), SERVER, cold)
  await Promise.all([asked, cold.postForm('/revoke', { token }, bearer(customer.apiKey))])
  const said = new Set((await asked).json.tokens.map((each: object) => JSON.stringify(each)))
  expect(said.size).toBe(1)
  expect((await batch([token], SERVER, cold)).json).toEqual({ tokens: [{ active: false }] })
})

test('an access token that is revoked while the session of a refresh token is read is inactive', async () => {
  const database = holding(world.db)
  const replica = await replicaOn(world, database.db)
  const { access_token, refresh_token } = await customer.session()
  const { access_token: other } = await customer.session()
  const read = database.hold(named('findRefreshable'))
  const asked = replica.request('/introspect/batch', {
    method: 'POST',
    headers: { ...bearer(customer.apiKey), 'Content-Type': 'application/json' },
    body: JSON.stringify({ tokens: [access_token, refresh_token, other] }),
  })
  await read.has
  const revoked = await replica.request('/revoke', {
    method: 'POST',
    headers: bearer(customer.apiKey),
    body: new URLSearchParams({ token: access_token }),
  })
  expect(revoked.status).toBe(200)
  read.release()
  const { tokens } = (await asked).json
  expect(tokens.map((each: { active: boolean }) => each.active)).toEqual([false, true, true])
})

test('a refresh token that is repeated in a batch gets the same answer each time, while it is used', async () => {
  for (let round = 0; round < 20; round++) {
    const { refresh_token: token } = await customer.session()
    const rotated = assay.refresh(token)
    const asked = batch(Array(100).fill(token), bearer(customer.apiKey))
    const { json } = await rotated
    const said = new Set((await asked).json.tokens.map((each: object) => JSON.stringify(each)))
    expect(said.size).toBe(1)
    const { tokens } = (await batch([token, json.refresh_token], bearer(customer.apiKey))).json
    expect(tokens.map((each: { active: boolean }) => each.active)).toEqual([false, true])
  }
})

test('a customer sends 4 MiB of batches in two seconds at most, and services as much as they like', async () => {
  const [busy, quiet] = [await assay.signUp(), await assay.signUp()]
  // Without a Content-Length each counts as the largest allowed body.
  const chunked = { ...bearer(busy.apiKey), 'Transfer-Encoding': 'chunked' }
  for (let sent = 0; sent < 4; sent++) expect((await batch([], chunked)).status).toBe(200)
  const { status, headers, json } = await batch([], bearer(busy.apiKey))
  expect([status, json.error]).toEqual([429, 'too_many_requests'])
  expect(json.error_description).toMatch(/more than 4194304 bytes of batches in 2 s; try again in \d+ s/)
  expect(headers.get('ratelimit-policy')).toBe('"batches";q=4194304;w=2')
  expect((await batch([], bearer(quiet.apiKey))).status).toBe(200)
  for (let sent = 0; sent < 25; sent++) expect((await batch([])).status).toBe(200)
  await forgetBatches(assay)
  expect((await batch([], bearer(busy.apiKey))).status).toBe(200)
})
