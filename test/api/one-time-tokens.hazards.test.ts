import { afterAll, beforeAll, expect, test } from 'vitest'
import { newCredential } from '../../server/crypto/credentials.ts'
import { countHashes } from '../support/hasher.ts'
import { oneTimeToken, setState } from '../support/plant.ts'
import {
  ADMIN_TOKEN,
  type Answer,
  basic,
  bearer,
  makeWorld,
  type Replica,
  type World,
} from '../support/world.ts'

/** Strangers, other customers and holders of old tokens against one-time tokens. */

let world: World
let assay: Replica

beforeAll(async () => {
  world = await makeWorld()
  assay = await world.replica()
})
afterAll(() => world.stop())

const PASSWORD = 'a new and longer pass phrase'
const reset = (token: string, ip?: string, at = assay) =>
  at.request('/api/auth/reset', {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify({ token, password: PASSWORD }),
    ...(ip && { ip }),
  })
const verifyEmail = (token: string) => assay.postJson('/api/auth/verify-email', { token })
const withoutId = ({ status, json }: Answer) => ({ status, json: { ...json, request_id: undefined } })
const HOUR = 3_600_000

test('a token that is wrong, used, replaced, expired or spelled differently gets one and the same answer', async () => {
  const [customer, neighbour] = [await assay.signUp(), await assay.signUp()]
  const used = await oneTimeToken(assay, customer.id, 'password-reset')
  expect((await reset(used)).status).toBe(204)
  const expired = await oneTimeToken(assay, neighbour.id, 'password-reset')
  await world.advance(HOUR + 1_000)
  const replaced = await oneTimeToken(assay, customer.id, 'password-reset')
  const open = await oneTimeToken(assay, customer.id, 'password-reset')
  const [, , , secret] = open.split('_')
  const refused = {
    used,
    expired,
    replaced,
    'of a customer that does not exist': newCredential('assay_ot', 'aaaaaaaaaaaaaaaa').text,
    'with another secret': newCredential('assay_ot', customer.id).text,
    'for another customer': open.replace(customer.id, neighbour.id),
    'in capitals': open.toUpperCase(),
    'in small letters': open.toLowerCase(),
    'with a space behind it': `${open} `,
    'with a line end behind it': `${open}\n`,
    'with a space before it': ` ${open}`,
    'with the prefix of an API key': open.replace('assay_ot', 'assay_ak'),
    'without its check': open.slice(0, -7),
    'with another check': `${open.slice(0, -1)}${open.endsWith('0') ? '1' : '0'}`,
    'its secret alone': secret!,
    'an API key': customer.apiKey,
    'an access token, cut': neighbour.accessToken.slice(0, 256),
    'for another purpose': await oneTimeToken(assay, customer.id, 'email-verification'),
    empty: '',
    'not ASCII': 'assay_ot_ü',
    'with a NUL': `${open.slice(0, -1)}\u0000`,
  }
  const answers = await Promise.all(Object.values(refused).map(token => reset(token)))
  expect(answers[0]!.json).toMatchObject({ status: 400, error: 'invalid_grant' })
  expect(answers[0]!.json.detail).toContain('request a new link')
  answers.forEach((answer, n) => {
    const name = Object.keys(refused)[n]
    expect([name, withoutId(answer)]).toEqual([name, withoutId(answers[0]!)])
  })
  expect((await reset(open)).status).toBe(204)
})

test('a token for one purpose is none for another', async () => {
  const customer = await assay.signUp()
  const email = `${crypto.randomUUID()}@example.org`
  const tokens = {
    reset: await oneTimeToken(assay, customer.id, 'password-reset'),
    verification: await oneTimeToken(assay, customer.id, 'email-verification'),
    change: await oneTimeToken(assay, customer.id, 'email-change', { email }),
  }
  for (const refused of [
    await reset(tokens.verification),
    await reset(tokens.change),
    await verifyEmail(tokens.reset),
  ])
    expect([refused.status, refused.json.error]).toEqual([400, 'invalid_grant'])
  expect((await verifyEmail(tokens.verification)).status).toBe(204)
  expect((await verifyEmail(tokens.change)).status).toBe(204)
  expect((await verifyEmail(tokens.change)).status).toBe(400)
})

test("one customer's tokens have no effect on another's", async () => {
  const [customer, neighbour] = [await assay.signUp(), await assay.signUp()]
  const theirs = await oneTimeToken(assay, neighbour.id, 'password-reset')
  await oneTimeToken(assay, customer.id, 'password-reset')
  expect((await reset(theirs)).status).toBe(204)
  expect((await assay.verify(customer.accessToken)).status).toBe(200)
  expect((await assay.postJson('/api/auth/login', account(customer))).status).toBe(200)
})

const account = ({ email, password }: { email: string; password: string }) => ({ email, password })

test('a token is no credential: it opens nothing else', async () => {
  const customer = await assay.signUp()
  const token = await oneTimeToken(assay, customer.id, 'password-reset')
  const answers = [
    await assay.get('/api/auth/me', token),
    await assay.get('/api/keys', token),
    await assay.get('/api/sessions', token),
    await assay.get('/admin/customers', token),
    await assay.verify(token),
    await assay.postJson('/issue', {}, bearer(token)),
    await assay.postForm('/token', { grant_type: 'client_credentials' }, bearer(token)),
    await assay.introspect(token, basic(customer.id, token)),
  ]
  expect(answers.map(({ status }) => status)).toEqual(answers.map(() => 401))
  expect((await assay.refresh(token)).json.error).toBe('invalid_grant')
  expect((await assay.introspect(token)).text).toBe('{"active":false}')
  expect((await reset(token)).status).toBe(204)
})

test('H43 guesses are limited by address, for both endpoints together, and cost no hash', async () => {
  const alone = await world.replica()
  const customer = await alone.signUp()
  const token = await oneTimeToken(alone, customer.id, 'password-reset')
  const hasher = await countHashes()
  try {
    const ip = '203.0.113.9'
    const guess = (n: number) =>
      n % 2
        ? reset(newCredential('assay_ot', customer.id).text, ip, alone)
        : alone.request('/api/auth/verify-email', {
            method: 'POST',
            ip,
            headers: { 'Content-Type': 'application/json' },
            body: JSON.stringify({ token: newCredential('assay_ot', customer.id).text }),
          })
    let statuses: number[] = []
    const { started } = await hasher.during(async () => {
      statuses = (await Promise.all(Array.from({ length: 40 }, (_, n) => guess(n)))).map(one => one.status)
    })
    expect(started).toBe(0)
    expect(statuses.filter(status => status === 400)).toHaveLength(20)
    expect(statuses.filter(status => status === 429)).toHaveLength(20)
    const limited = await reset(token, ip, alone)
    expect(limited.status).toBe(429)
    expect(Number(limited.headers.get('retry-after'))).toBeGreaterThan(0)
    // Someone else is not locked out.
    expect((await reset(token, '203.0.113.10', alone)).status).toBe(204)
  } finally {
    hasher.stop()
  }
})

test('guesses at the password through a change of the address share the limit of the session', async () => {
  const customer = await assay.signUp()
  const ask = (password: string) =>
    assay.postJson('/api/auth/email', { email: 'ann@example.org', password }, bearer(customer.accessToken))
  for (let tries = 0; tries < 5; tries++) expect((await ask('a guess')).status).toBe(401)
  const body = { password: 'a guess', new_password: PASSWORD }
  for (let tries = 0; tries < 5; tries++)
    expect((await assay.postJson('/api/auth/password', body, bearer(customer.accessToken))).status).toBe(401)
  expect((await ask(customer.password)).status).toBe(429)
})

test('only the account itself asks for another address: no user, no API key, no disabled customer', async () => {
  const customer = await assay.signUp()
  const { access_token } = await customer.session({ subject: customer.id })
  const ask = (token: string) =>
    assay.postJson(
      '/api/auth/email',
      { email: 'ann@example.org', password: customer.password },
      bearer(token),
    )
  expect((await ask(access_token)).status).toBe(403)
  expect((await ask(customer.apiKey)).status).toBe(401)
  await setState(world, customer.id, 'disabled', [assay])
  expect((await ask(customer.accessToken)).status).toBe(401)
})

test.each([
  ['/api/auth/reset', { token: 'x'.repeat(257), password: PASSWORD }, /^token/],
  ['/api/auth/reset', { password: PASSWORD }, /^token: is missing/],
  ['/api/auth/reset', { token: 'x' }, /^password: is missing/],
  ['/api/auth/reset', { token: ['x'], password: PASSWORD }, /^token: must be a string/],
  [
    '/api/auth/reset',
    { token: 'x', password: PASSWORD, email: 'a@example.com' },
    /^unknown field; allowed: /,
  ],
  ['/api/auth/verify-email', { token: 'x'.repeat(257) }, /^token/],
  ['/api/auth/verify-email', { token: 'x', email: 'a@example.com' }, /^unknown field; allowed: /],
])('%s refuses a malformed body and says what is wrong (%#)', async (path, body, detail) => {
  const { status, json } = await assay.postJson(path, body)
  expect([status, json.error]).toEqual([400, 'invalid_request'])
  expect(json.detail).toMatch(detail)
})

test.each(['no address', 'a@', '', `${'a'.repeat(250)}@example.com`])(
  'an address that is none is refused: %s',
  async email => {
    const customer = await assay.signUp()
    const answers = [
      await assay.postJson(
        '/api/auth/email',
        { email, password: customer.password },
        bearer(customer.accessToken),
      ),
      await assay.postJson(`/admin/customers/${customer.id}/email-change`, { email }, bearer(ADMIN_TOKEN)),
    ]
    for (const { status, json } of answers) {
      expect([status, json.error]).toEqual([400, 'invalid_request'])
      expect(json.detail).toMatch(/^email: /)
    }
  },
)

test('an erased customer has no tokens, and one with its address gets none of them', async () => {
  const customer = await assay.signUp()
  const token = await oneTimeToken(assay, customer.id, 'password-reset')
  const path = `/admin/customers/${customer.id}`
  const headers = bearer(ADMIN_TOKEN)
  expect((await assay.request(path, { method: 'DELETE', headers })).status).toBe(200)
  expect(
    await world.admin.query('select from assay.one_time_tokens where customer_id = $1', [customer.id]),
  ).toEqual([])
  await assay.signUp(customer.email)
  expect((await reset(token)).json.error).toBe('invalid_grant')
})

test("a replica's wrong wall clock makes no token live longer or shorter", async () => {
  const customer = await assay.signUp()
  const wrong = await world.replica()
  for (const hours of [-48, 96]) {
    wrong.clock.setWall(hours * HOUR)
    const open = await oneTimeToken(wrong, customer.id, 'password-reset')
    await world.advance(HOUR - 10_000)
    expect((await reset(open, undefined, wrong)).status).toBe(204)
    const late = await oneTimeToken(wrong, customer.id, 'password-reset')
    await world.advance(HOUR + 1_000)
    expect((await reset(late, undefined, wrong)).status).toBe(400)
  }
})

test('neither token nor password is in the database, the audit, the log or an error', async () => {
  const customer = await assay.signUp()
  const tokens = [
    await oneTimeToken(assay, customer.id, 'password-reset'),
    await oneTimeToken(assay, customer.id, 'email-verification'),
  ]
  const rows = await everyRow()
  const used = await reset(tokens[0]!)
  const again = await reset(tokens[0]!)
  const verified = await verifyEmail(tokens[1]!)
  expect([used.status, again.status, verified.status]).toEqual([204, 400, 204])
  const texts = [rows, await everyRow(), assay.lines.join(), used.text, again.text]
  for (const token of tokens) {
    const secret = token.split('_')[3]!
    for (const text of texts) expect(text).not.toContain(secret)
  }
  for (const text of texts) expect(text).not.toContain(PASSWORD)
})

/** Every row of every table, as JSON. */
async function everyRow(): Promise<string> {
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
