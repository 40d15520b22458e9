import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { logIn, oneTimeToken, setState, sync, type TokenPath } from '../support/plant.ts'
import {
  ADMIN_TOKEN,
  ALICE,
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

const NEW = 'a new and longer pass phrase'
const newEmail = () => `${crypto.randomUUID()}@example.org`

const create = (customerId: string, path: TokenPath, body: object = {}) =>
  assay.postJson(`/admin/customers/${customerId}/${path}`, body, bearer(ALICE))
const reset = (token: string, password = NEW) => assay.postJson('/api/auth/reset', { token, password })
const verifyEmail = (token: string) => assay.postJson('/api/auth/verify-email', { token })
const askForEmail = ({ accessToken, password }: Customer, email: string) =>
  assay.postJson('/api/auth/email', { email, password }, bearer(accessToken))
const patch = (customerId: string, change: object, headers: Record<string, string> = {}) =>
  assay.request(`/admin/customers/${customerId}`, {
    method: 'PATCH',
    headers: { ...bearer(ALICE), 'Content-Type': 'application/json', ...headers },
    body: JSON.stringify(change),
  })
const statusOfLogin = async (email: string, password: string) =>
  (await assay.postJson('/api/auth/login', { email, password })).status
const findCustomer = async ({ id }: Customer) => (await assay.get(`/admin/customers/${id}`, ALICE)).json
const findMe = async ({ accessToken }: Customer) => (await assay.get('/api/auth/me', accessToken)).json
const newestEvents = async ({ id }: Customer, limit: number) =>
  (await assay.get(`/admin/audit?customer=${id}&limit=${limit}`, ALICE)).json.events

describe('a password reset', () => {
  test('sets the password and ends the sessions of the account, but not those of its users', async () => {
    const customer = await assay.signUp()
    const elsewhere = await logIn(assay, customer)
    const user = await customer.session()
    const { status, json } = await create(customer.id, 'password-reset')
    expect([status, json.email]).toEqual([201, customer.email])
    const answer = await reset(json.token)
    expect([answer.status, answer.text]).toEqual([204, ''])
    await sync(other)
    for (const replica of [assay, other]) {
      for (const token of [customer.accessToken, elsewhere.access_token])
        expect((await replica.verify(token)).status).toBe(401)
      expect((await replica.verify(user.access_token)).status).toBe(200)
    }
    expect((await assay.refresh(customer.refreshToken)).json.error).toBe('invalid_grant')
    expect((await assay.refresh(user.refresh_token)).status).toBe(200)
    expect(await statusOfLogin(customer.email, customer.password)).toBe(401)
    expect(await statusOfLogin(customer.email, NEW)).toBe(200)
  })

  test('names its operator and the customer in the audit', async () => {
    const customer = await assay.signUp()
    await reset((await create(customer.id, 'password-reset')).json.token)
    const [ended, done, asked] = await newestEvents(customer, 3)
    const actor = `customer:${customer.id}`
    expect([ended, done].map(({ type }) => type).sort()).toEqual([
      'customer.password_reset',
      'session.revoked',
    ])
    for (const event of [ended, done]) expect(event).toMatchObject({ actor, subject: customer.id })
    expect(asked).toMatchObject({
      type: 'customer.password_reset_requested',
      actor: 'operator:alice',
      detail: { expires_in: 3_600 },
    })
  })

  test('lives for an hour, by the clock of the database', async () => {
    const customer = await assay.signUp()
    const before = (await world.admin.query<{ at: Date }>('select assay.now() as at'))[0]!.at
    const { json } = await create(customer.id, 'password-reset')
    const seconds = (Date.parse(json.expires_at) - before.getTime()) / 1_000
    expect(seconds).toBeGreaterThanOrEqual(3_600)
    expect(seconds).toBeLessThan(3_610)
  })

  test.each([
    [300, 290, 204],
    [300, 301, 400],
    [86_400, 86_390, 204],
    [86_400, 86_401, 400],
  ])('that was made for %i s is answered after %i s with %i', async (expires_in, seconds, status) => {
    const customer = await assay.signUp()
    const token = await oneTimeToken(assay, customer.id, 'password-reset', { expires_in })
    await world.advance(seconds * 1_000)
    expect((await reset(token)).status).toBe(status)
  })

  test.each([299, 86_401, 0, -1, 300.5, '1h', null])('is not made for %s s', async expires_in => {
    const customer = await assay.signUp()
    for (const path of ['password-reset', 'email-verification'] as const) {
      const { status, json } = await create(customer.id, path, { expires_in })
      expect([status, json.error]).toEqual([400, 'invalid_request'])
      expect(json.detail).toMatch(/^expires_in: .*whole/)
    }
  })

  test('is not made for a customer that does not exist', async () => {
    for (const id of ['aaaaaaaaaaaaaaaa', 'not-an-id'])
      for (const path of ['password-reset', 'email-verification', 'email-change'] as const) {
        const { status, json } = await create(id, path, path === 'email-change' ? { email: newEmail() } : {})
        expect([status, json.error]).toEqual([404, 'not_found'])
      }
  })

  test('takes a password by the rules of signup, and a refused one leaves the token open', async () => {
    const customer = await assay.signUp()
    const token = await oneTimeToken(assay, customer.id, 'password-reset')
    for (const password of ['seven77', 'x'.repeat(257), '\ud800 half a pair', 'unassigned \u{e0fff}']) {
      const { status, json } = await reset(token, password)
      expect([status, json.error]).toEqual([400, 'invalid_request'])
      expect(json.detail).toMatch(/^password: /)
    }
    expect((await reset(token, 'cafe\u0301 u\u0308ber alles')).status).toBe(204)
    expect(await statusOfLogin(customer.email, 'caf\u00e9 \u00fcber alles')).toBe(200)
  })

  test('works for a disabled customer, which stays disabled', async () => {
    const customer = await assay.signUp()
    await setState(world, customer.id, 'disabled', [assay, other])
    const { status, json } = await create(customer.id, 'password-reset')
    expect(status).toBe(201)
    expect((await reset(json.token)).status).toBe(204)
    expect(await statusOfLogin(customer.email, NEW)).toBe(403)
    expect((await findCustomer(customer)).state).toBe('disabled')
    await setState(world, customer.id, 'active', [assay, other])
    expect(await statusOfLogin(customer.email, NEW)).toBe(200)
  })

  test('works on another replica than the one that made its token', async () => {
    const customer = await assay.signUp()
    const token = await oneTimeToken(assay, customer.id, 'password-reset')
    expect((await other.postJson('/api/auth/reset', { token, password: NEW })).status).toBe(204)
  })

  test('gives a customer that was created without a password its first one', async () => {
    const email = newEmail()
    const { json } = await assay.postJson('/admin/customers', { email }, bearer(ALICE))
    const token = await oneTimeToken(assay, json.customer.id, 'password-reset', { expires_in: 86_400 })
    expect((await reset(token)).status).toBe(204)
    expect(await statusOfLogin(email, NEW)).toBe(200)
  })

  test('is not outlived by a login with the old password that is under way', async () => {
    const customer = await assay.signUp()
    const token = await oneTimeToken(assay, customer.id, 'password-reset')
    let resetting = true
    const done = reset(token).finally(() => {
      resetting = false
    })
    const logins: ReturnType<typeof assay.postJson>[] = []
    const { email, password } = customer
    while (resetting && logins.length < 60) {
      logins.push(assay.postJson('/api/auth/login', { email, password }))
      await new Promise(resolve => setImmediate(resolve))
    }
    expect((await done).status).toBe(204)
    for (const { status, json } of await Promise.all(logins))
      if (status === 200) expect((await assay.verify(json.access_token)).status).toBe(401)
    const { access_token } = await logIn(assay, { email, password: NEW })
    const { json } = await assay.get('/api/sessions', access_token)
    expect(json.sessions.map(({ id }: { id: string }) => id)).toEqual([claimsOf(access_token).sid])
  })
})

describe('a verification of the address', () => {
  test('is shown to the customer and to operators, and ends no session', async () => {
    const customer = await assay.signUp()
    for (const shown of [await findMe(customer), await findCustomer(customer)])
      expect(shown).not.toHaveProperty('email_verified_at')
    const { status, json } = await create(customer.id, 'email-verification')
    expect([status, json.email]).toEqual([201, customer.email])
    expect((await verifyEmail(json.token)).status).toBe(204)
    const { email_verified_at } = await findMe(customer)
    const [row] = await world.admin.query<{ now: Date }>('select assay.now() as now')
    const ageMs = row!.now.getTime() - Date.parse(email_verified_at)
    expect(ageMs).toBeGreaterThanOrEqual(0)
    expect(ageMs).toBeLessThan(60_000)
    expect(await findCustomer(customer)).toMatchObject({ email: customer.email, email_verified_at })
    const { json: page } = await assay.get(`/admin/customers?email=${customer.email}`, ALICE)
    expect(page.customers[0].email_verified_at).toBe(email_verified_at)
    const login = await assay.postJson('/api/auth/login', customerLogin(customer))
    expect(login.json.customer.email_verified_at).toBe(email_verified_at)
  })

  const customerLogin = ({ email, password }: Customer) => ({ email, password })

  test('is lost with the address, and neither with the name nor with the same address again', async () => {
    const customer = await assay.signUp()
    await verifyEmail(await oneTimeToken(assay, customer.id, 'email-verification'))
    const { email_verified_at } = await findMe(customer)
    for (const change of [{ name: 'Ann' }, { email: customer.email.toUpperCase() }]) {
      const { json } = await patch(customer.id, change)
      expect(json.email_verified_at).toBe(email_verified_at)
    }
    const { status, json } = await patch(customer.id, { email: newEmail() })
    expect(status).toBe(200)
    expect(json).not.toHaveProperty('email_verified_at')
    expect(await findMe(customer)).not.toHaveProperty('email_verified_at')
  })

  test('is a change of the customer that an operator has to have read', async () => {
    const customer = await assay.signUp()
    const token = await oneTimeToken(assay, customer.id, 'email-verification')
    const etag = (await assay.get(`/admin/customers/${customer.id}`, ALICE)).headers.get('etag')!
    expect((await verifyEmail(token)).status).toBe(204)
    expect((await patch(customer.id, { name: 'Ann' }, { 'If-Match': etag })).status).toBe(412)
  })

  test('does not verify an address that the token was not sent to', async () => {
    const customer = await assay.signUp()
    const token = await oneTimeToken(assay, customer.id, 'email-verification')
    await patch(customer.id, { email: newEmail() })
    expect((await verifyEmail(token)).json.error).toBe('invalid_grant')
    expect(await findMe(customer)).not.toHaveProperty('email_verified_at')
  })

  test('outlives a change of the password', async () => {
    const customer = await assay.signUp()
    const token = await oneTimeToken(assay, customer.id, 'email-verification')
    await reset(await oneTimeToken(assay, customer.id, 'password-reset'))
    expect((await verifyEmail(token)).status).toBe(204)
  })
})

describe('a change of the address', () => {
  test('is asked for by the account, delivered by the operator, and ends no session', async () => {
    const customer = await assay.signUp()
    const email = newEmail()
    const asked = await askForEmail(customer, ` ${email.toUpperCase()} `)
    expect([asked.status, asked.json]).toEqual([202, { customer_id: customer.id, email }])
    expect(await findMe(customer)).toMatchObject({ email: customer.email })
    const { status, json } = await create(customer.id, 'email-change', { email: asked.json.email })
    expect([status, json.email]).toEqual([201, email])
    expect(await findMe(customer)).toMatchObject({ email: customer.email })
    expect((await verifyEmail(json.token)).status).toBe(204)
    expect(await findMe(customer)).toMatchObject({ email, email_verified_at: expect.any(String) })
    expect((await assay.refresh(customer.refreshToken)).status).toBe(200)
    expect(await statusOfLogin(customer.email, customer.password)).toBe(401)
    expect(await statusOfLogin(email, customer.password)).toBe(200)
    const types = (await newestEvents(customer, 10)).map(({ type }: { type: string }) => type)
    expect(types.filter((type: string) => type.includes('email'))).toEqual([
      'customer.email_changed',
      'customer.email_change_requested',
      'customer.email_change_requested',
    ])
  })

  test('needs the password, and a wrong one is an event of the audit', async () => {
    const customer = await assay.signUp()
    const { status, json } = await askForEmail({ ...customer, password: 'a guess' }, newEmail())
    expect([status, json.error]).toEqual([401, 'invalid_credentials'])
    const [event] = await newestEvents(customer, 1)
    expect(event).toMatchObject({
      type: 'customer.email_change_failed',
      session_id: claimsOf(customer.accessToken).sid,
    })
  })

  test('does not tell whether another account has the address, until its mailbox has confirmed it', async () => {
    const [customer, neighbour] = [await assay.signUp(), await assay.signUp()]
    const answers = [await askForEmail(customer, neighbour.email), await askForEmail(customer, newEmail())]
    const forms = answers.map(({ status, json }) => [status, { ...json, email: undefined }])
    expect(forms[0]).toEqual(forms[1])
    const created = await create(customer.id, 'email-change', { email: neighbour.email })
    expect(created.status).toBe(201)
    const { status, json } = await verifyEmail(created.json.token)
    expect([status, json.error]).toEqual([409, 'conflict'])
    expect(json.detail).toContain('request a change to another address')
    expect(await findMe(customer)).toMatchObject({ email: customer.email })
    expect(await findMe(neighbour)).toMatchObject({ email: neighbour.email })
    // Nothing was consumed, so that the token works once the address is free.
    await patch(neighbour.id, { email: newEmail() })
    expect((await verifyEmail(created.json.token)).status).toBe(204)
  })

  test('is no change of the address of a customer whose password was changed since', async () => {
    const changes: [name: string, change: (customer: Customer) => Promise<{ status: number }>][] = [
      ['by a reset', async ({ id }) => reset(await oneTimeToken(assay, id, 'password-reset'))],
      [
        'by the account',
        ({ accessToken, password }) =>
          assay.postJson('/api/auth/password', { password, new_password: NEW }, bearer(accessToken)),
      ],
      [
        'by an operator',
        ({ id }) =>
          assay.request(`/admin/customers/${id}/password`, {
            method: 'PUT',
            headers: { ...bearer(ADMIN_TOKEN), 'Content-Type': 'application/json' },
            body: JSON.stringify({ password: NEW }),
          }),
      ],
    ]
    for (const [name, change] of changes) {
      const customer = await assay.signUp()
      const token = await oneTimeToken(assay, customer.id, 'email-change', { email: newEmail() })
      expect([name, (await change(customer)).status]).toEqual([name, 204])
      expect([name, (await verifyEmail(token)).json.error]).toEqual([name, 'invalid_grant'])
      expect((await findCustomer(customer)).email).toBe(customer.email)
    }
  })

  test('gives way to an address that an operator sets meanwhile', async () => {
    const customer = await assay.signUp()
    const token = await oneTimeToken(assay, customer.id, 'email-change', { email: newEmail() })
    const email = newEmail()
    await patch(customer.id, { email })
    expect((await verifyEmail(token)).json.error).toBe('invalid_grant')
    expect((await findCustomer(customer)).email).toBe(email)
  })

  test('is not undone by a change of the name', async () => {
    const customer = await assay.signUp()
    const token = await oneTimeToken(assay, customer.id, 'email-change', { email: newEmail() })
    await patch(customer.id, { name: 'Ann' })
    expect((await verifyEmail(token)).status).toBe(204)
  })

  test('voids the reset that was sent to the old address', async () => {
    const customer = await assay.signUp()
    const token = await oneTimeToken(assay, customer.id, 'password-reset')
    await verifyEmail(await oneTimeToken(assay, customer.id, 'email-change', { email: newEmail() }))
    expect((await reset(token)).json.error).toBe('invalid_grant')
    expect((await assay.verify(customer.accessToken)).status).toBe(200)
  })
})
