import { afterAll, beforeAll, expect, test } from 'vitest'
import { logIn, setState, sync } from '../support/plant.ts'
import {
  ADMIN_TOKEN,
  bearer,
  type Customer,
  claimsOf,
  makeWorld,
  type Replica,
  type World,
} from '../support/world.ts'

/** Logout and password change, and refreshes that run at the same time. */

let world: World
let assay: Replica
let other: Replica

beforeAll(async () => {
  world = await makeWorld()
  assay = await world.replica()
  other = await world.replica()
})
afterAll(() => world.stop())

const NEW = 'a new and longer pass phrase'
const logOut = (token: string) =>
  assay.request('/api/auth/logout', { method: 'POST', headers: bearer(token) })
const change = (token: string, password: string, newPassword = NEW) =>
  assay.postJson('/api/auth/password', { password, new_password: newPassword }, bearer(token))
const statusOfLogin = async ({ email }: Customer, password: string) =>
  (await assay.postJson('/api/auth/login', { email, password })).status

test('logging out ends the session and all its access tokens at once, on every replica', async () => {
  const customer = await assay.signUp()
  const refreshed = (await assay.refresh(customer.refreshToken)).json
  const elsewhere = await logIn(assay, customer)
  for (const token of [customer.accessToken, refreshed.access_token])
    expect((await other.verify(token)).status).toBe(200)
  expect((await logOut(refreshed.access_token)).status).toBe(204)
  for (const token of [customer.accessToken, refreshed.access_token]) {
    expect((await assay.verify(token)).status).toBe(401)
    expect((await assay.introspect(token)).text).toBe('{"active":false}')
    expect((await assay.get('/api/auth/me', token)).status).toBe(401)
  }
  await sync(other)
  expect((await other.verify(customer.accessToken)).status).toBe(401)
  for (const token of [customer.refreshToken, refreshed.refresh_token]) {
    const { status, json } = await assay.refresh(token)
    expect([status, json.error]).toEqual([400, 'invalid_grant'])
  }
  expect((await assay.verify(elsewhere.access_token)).status).toBe(200)
  expect((await logOut(refreshed.access_token)).status).toBe(401)
})

test("a user's session can't be logged out through the customer's account", async () => {
  const customer = await assay.signUp()
  const { access_token } = await customer.session()
  const { status, json } = await logOut(access_token)
  expect([status, json.error]).toEqual([403, 'insufficient_scope'])
  expect((await assay.verify(access_token)).status).toBe(200)
})

test('a new password ends the other sessions at once, but not this one or those of users', async () => {
  const customer = await assay.signUp()
  const mine = await logIn(assay, customer)
  const user = await customer.session()
  // A user whose id equals the customer's id is still a user.
  const namesake = await customer.session({ subject: customer.id, scope: 'read' })
  expect((await other.verify(customer.accessToken)).status).toBe(200)
  expect((await change(mine.access_token, customer.password)).status).toBe(204)

  expect((await assay.verify(customer.accessToken)).status).toBe(401)
  expect((await assay.refresh(customer.refreshToken)).json.error).toBe('invalid_grant')
  await sync(other)
  expect((await other.verify(customer.accessToken)).status).toBe(401)
  for (const kept of [mine, user, namesake]) {
    expect((await assay.verify(kept.access_token)).status).toBe(200)
    expect((await other.verify(kept.access_token)).status).toBe(200)
    expect((await assay.refresh(kept.refresh_token)).status).toBe(200)
  }
  expect(await statusOfLogin(customer, customer.password)).toBe(401)
  expect(await statusOfLogin(customer, NEW)).toBe(200)
  expect((await customer.issue()).status).toBe(200)
})

test('a new password ends a hundred other sessions at once', async () => {
  const customer = await assay.signUp()
  await world.admin.query(
    `insert into assay.sessions (customer_id, id, subject, scope, audience, access_ttl, customer_epoch,
      subject_epoch, issued_at, rotated_at, key_version, access_until, expires_at, ends_at)
    select customer_id, id || n, subject, scope, audience, access_ttl, customer_epoch, subject_epoch, issued_at,
      rotated_at, key_version, access_until, expires_at, ends_at
    from assay.sessions, generate_series(1, 100) n where customer_id = $1`,
    [customer.id],
  )
  expect((await change(customer.accessToken, customer.password)).status).toBe(204)
  const { json } = await assay.get('/api/sessions', customer.accessToken)
  expect(json.sessions.map(({ id }: { id: string }) => id)).toEqual([claimsOf(customer.accessToken).sid])
})

test('a wrong current password changes nothing and ends nothing', async () => {
  const customer = await assay.signUp()
  const elsewhere = await logIn(assay, customer)
  const { status, json } = await change(customer.accessToken, 'not the password')
  expect([status, json.error]).toEqual([401, 'invalid_credentials'])
  expect((await assay.verify(elsewhere.access_token)).status).toBe(200)
  expect(await statusOfLogin(customer, customer.password)).toBe(200)
  expect(await statusOfLogin(customer, NEW)).toBe(401)
})

test.each([
  ['of 7 characters', { new_password: 'seven77' }, /^new_password: at least 8/],
  ['of 257 bytes', { new_password: 'x'.repeat(257) }, /^new_password/],
  ['that is missing', { new_password: undefined }, /^new_password/],
  ['without the current one', { password: undefined }, /^password/],
  ['with a current one of 258 bytes', { password: 'é'.repeat(129) }, /^password/],
  ['with an unknown member', { email: 'a@example.com' }, /^unknown field; allowed: /],
])('a new password %s is refused', async (_, wrong, detail) => {
  const customer = await assay.signUp()
  const body = { password: customer.password, new_password: NEW, ...wrong }
  const { status, json } = await assay.postJson('/api/auth/password', body, bearer(customer.accessToken))
  expect([status, json.error]).toEqual([400, 'invalid_request'])
  expect(json.detail).toMatch(detail)
  expect(await statusOfLogin(customer, customer.password)).toBe(200)
})

test('password changes cannot be used for guessing: the eleventh attempt in a minute is 429', async () => {
  const customer = await assay.signUp()
  for (let tries = 0; tries < 10; tries++)
    expect((await change(customer.accessToken, 'a guess')).status).toBe(401)
  const { status, headers } = await change(customer.accessToken, customer.password)
  expect(status).toBe(429)
  expect(Number(headers.get('retry-after'))).toBeGreaterThan(0)
})

test('guessing the password with a stolen token locks the owner out of that session only', async () => {
  const customer = await assay.signUp()
  for (let tries = 0; tries < 12; tries++) await change(customer.accessToken, 'a guess')
  const { access_token } = await logIn(assay, customer)
  expect((await change(access_token, customer.password)).status).toBe(204)
})

test('guesses in many sessions from one address share one limit with its logins', async () => {
  const alone = await world.replica()
  const customers = await Promise.all(Array.from({ length: 7 }, () => alone.signUp()))
  const guess = (token: string) =>
    alone.request('/api/auth/password', {
      method: 'POST',
      ip: '203.0.113.77',
      headers: { ...bearer(token), 'Content-Type': 'application/json' },
      body: JSON.stringify({ password: 'a guess', new_password: NEW }),
    })
  const tokens = customers.flatMap(({ accessToken }) => Array<string>(10).fill(accessToken))
  const statuses = (await Promise.all(tokens.map(guess))).map(({ status }) => status)
  expect(statuses.filter(status => status === 429)).toHaveLength(10)
})

test('of two concurrent changes one succeeds and the other is refused', async () => {
  const customer = await assay.signUp()
  const one = await logIn(assay, customer)
  const two = await logIn(assay, customer)
  const answers = await Promise.all([
    change(one.access_token, customer.password, 'the password of one'),
    change(two.access_token, customer.password, 'the password of two'),
  ])
  const [won204, refused] = answers.map(({ status }) => status).sort()
  // Refused for the conflict or, if it came a moment later, for the old password or for the session that the other change ended.
  expect([won204, [401, 409].includes(refused!)]).toEqual([204, true])
  const [won, lost] = answers[0].status === 204 ? ['one', 'two'] : ['two', 'one']
  expect(await statusOfLogin(customer, `the password of ${won}`)).toBe(200)
  expect(await statusOfLogin(customer, `the password of ${lost}`)).toBe(401)
})

test('a login with the old password that runs at the same time does not survive the change', async () => {
  const customer = await assay.signUp()
  let changing = true
  const changed = change(customer.accessToken, customer.password).finally(() => {
    changing = false
  })
  const logins: ReturnType<typeof assay.postJson>[] = []
  const { email, password } = customer
  // One login per turn: some have read the old hash before the change, and start their session after it.
  while (changing && logins.length < 60) {
    logins.push(assay.postJson('/api/auth/login', { email, password }))
    await new Promise(resolve => setImmediate(resolve))
  }
  expect((await changed).status).toBe(204)
  const answers = await Promise.all(logins)
  for (const { status, json } of answers)
    if (status === 200) expect((await assay.verify(json.access_token)).status).toBe(401)
  const { json } = await assay.get('/api/sessions', customer.accessToken)
  expect(json.sessions).toHaveLength(1)
})

test('/api/auth/refresh and /refresh are one endpoint under two names', async () => {
  const { refreshToken } = await assay.signUp()
  const byForm = (await assay.refresh(refreshToken)).json
  const byJson = await assay.postJson('/api/auth/refresh', { refresh_token: refreshToken })
  expect(byJson.status).toBe(200)
  expect(byJson.headers.get('cache-control')).toBe('no-store')
  expect(Object.keys(byJson.json)).toEqual(Object.keys(byForm))
  expect(byJson.json.refresh_token).toBe(byForm.refresh_token)
  expect((await assay.postForm('/api/auth/refresh', { refresh_token: refreshToken })).json).toMatchObject({
    refresh_token: byForm.refresh_token,
    scope: 'assay:account',
  })
})

test.each<[name: string, body: { refresh_token?: string; scope?: string }]>([
  ['garbage', { refresh_token: 'garbage' }],
  ['nothing', {}],
  ['a scope beyond the session', { scope: 'read' }],
])('/api/auth/refresh refuses %s with the same error as /refresh', async (_, body) => {
  const { refreshToken } = await assay.signUp()
  const sent = { ...(body.scope && { refresh_token: refreshToken }), ...body }
  const [one, two] = [await assay.postJson('/refresh', sent), await assay.postJson('/api/auth/refresh', sent)]
  expect(one.status).toBe(400)
  expect(two.status).toBe(one.status)
  const withoutId = ({ json }: typeof one) => ({ ...json, request_id: undefined })
  expect(withoutId(two)).toEqual(withoutId(one))
})

test('a disabled customer can neither change its password nor log out', async () => {
  const customer = await assay.signUp()
  await setState(world, customer.id, 'disabled', [assay])
  expect((await change(customer.accessToken, customer.password)).status).toBe(401)
  expect((await logOut(customer.accessToken)).status).toBe(401)
})

test('a password set in composed form can be typed in decomposed form, and vice versa, on every endpoint', async () => {
  const [composed, decomposed] = ['caf\u00e9 \u00fcber alles', 'cafe\u0301 u\u0308ber alles']
  const customer = await assay.signUp()
  expect((await change(customer.accessToken, customer.password, decomposed)).status).toBe(204)
  expect(await statusOfLogin(customer, composed)).toBe(200)
  expect((await change(customer.accessToken, composed)).status).toBe(204)
  const path = `/admin/customers/${customer.id}/password`
  const body = JSON.stringify({ password: composed })
  const headers = { ...bearer(ADMIN_TOKEN), 'Content-Type': 'application/json' }
  expect((await assay.request(path, { method: 'PUT', headers, body })).status).toBe(204)
  expect(await statusOfLogin(customer, decomposed)).toBe(200)
})

test('the longest password may be sent decomposed, in three times as many bytes; a longer one is not normalized', async () => {
  const longest = '\ud55c'.repeat(85)
  const customer = await assay.signUp()
  expect((await change(customer.accessToken, customer.password, longest)).status).toBe(204)
  expect(Buffer.byteLength(longest.normalize('NFD'))).toBe(3 * 255)
  expect(await statusOfLogin(customer, longest.normalize('NFD'))).toBe(200)
  expect(await statusOfLogin(customer, `${longest.normalize('NFD')}xxxx`)).toBe(400)
})

test('eight emoji are eight characters', async () => {
  const customer = await assay.signUp()
  expect((await change(customer.accessToken, customer.password, '\u{1f511}'.repeat(8))).status).toBe(204)
  expect(await statusOfLogin(customer, '\u{1f511}'.repeat(8))).toBe(200)
})
