import { afterAll, beforeAll, expect, test } from 'vitest'
import { logIn, setState } from '../support/plant.ts'
import { type Answer, bearer, claimsOf, makeWorld, type Replica, type World } from '../support/world.ts'

let world: World
let assay: Replica

beforeAll(async () => {
  world = await makeWorld()
  assay = await world.replica()
})
afterAll(() => world.stop())

const PASSWORD = 'correct horse battery staple'
const customers = async () =>
  (await world.admin.query<{ count: number }>('select count(*)::int as count from assay.customers'))[0]!.count
const signUp = (body: unknown) => assay.postJson('/api/auth/signup', body)
const tooMuch = (padding: number) =>
  JSON.stringify({ email: 'a@example.com', password: PASSWORD, name: 'n'.repeat(padding) })

/** Every refused signup gets an answer that says what to fix and does not repeat the input. Nothing is stored. */
async function expectRefused(answer: Answer, status: number, detail: string | RegExp, before: number) {
  expect(answer.status).toBe(status)
  expect(answer.json.error).toBe('invalid_request')
  expect(answer.json.detail).toMatch(detail)
  expect(answer.text).not.toContain('canary')
  expect(await customers()).toBe(before)
}

test('signing up returns the customer, an API key and a first session', async () => {
  const { status, json, headers } = await signUp({
    email: 'new@example.com',
    password: PASSWORD,
    name: ' Ada ',
  })
  expect(status).toBe(201)
  expect(headers.get('cache-control')).toBe('no-store')
  expect(json.customer).toMatchObject({ email: 'new@example.com', name: 'Ada', state: 'active' })
  expect(json.api_key).toMatch(/^assay_ak_/)
  expect(claimsOf(json.access_token)).toMatchObject({ sub: json.customer.id, scope: 'assay:account' })
  expect((await assay.refresh(json.refresh_token)).status).toBe(200)
  expect(JSON.stringify(json)).not.toContain(PASSWORD)
})

const valid = { email: 'valid@example.com', password: PASSWORD }
const REFUSED: [name: string, body: unknown, detail: RegExp][] = [
  ['no email', { password: PASSWORD }, /^email/],
  ['an email that is a number', { ...valid, email: 7 }, /^email/],
  ['an email that is an array', { ...valid, email: ['canary@example.com'] }, /^email/],
  ['an empty email', { ...valid, email: '' }, /^email/],
  ['an email without a domain', { ...valid, email: 'canary' }, /^email/],
  ['an email with two at signs', { ...valid, email: 'canary@a@example.com' }, /^email/],
  ['an email with a control character', { ...valid, email: 'can\u0000ary@example.com' }, /^email/],
  ['an email of 255 characters', { ...valid, email: `canary@${'a.'.repeat(122)}info` }, /^email/],
  ['no password', { email: valid.email }, /^password/],
  ['a password that is null', { ...valid, password: null }, /^password/],
  ['a password of 7 characters', { ...valid, password: 'canary7' }, /^password: at least 8/],
  ['a password of 4 emoji', { ...valid, password: '\u{1f511}'.repeat(4) }, /^password: at least 8/],
  [
    'a password of 7 decomposed letters',
    { ...valid, password: 'e\u0301'.repeat(7) },
    /^password: at least 8/,
  ],
  [
    'a password of one character that NFKC makes 18 of',
    { ...valid, password: '\ufdfa' },
    /^password: at least 8/,
  ],
  [
    'a password with half a surrogate pair',
    { ...valid, password: 'canary78\ud800' },
    /^password: .*surrogate/,
  ],
  [
    'a password with an unassigned character',
    { ...valid, password: 'canary78\u0378' },
    /^password: .*not assigned/,
  ],
  [
    'a password that NFKC makes too long',
    { ...valid, password: '\ufdfa'.repeat(8) },
    /^password: .*256 bytes/,
  ],
  ['a password of 257 bytes', { ...valid, password: `canary${'x'.repeat(251)}` }, /^password: .*256 bytes/],
  ['a password of 129 characters in 258 bytes', { ...valid, password: 'é'.repeat(129) }, /^password/],
  ['an empty name', { ...valid, name: '  ' }, /^name/],
  ['a name of 101 characters', { ...valid, name: 'n'.repeat(101) }, /^name/],
  ['a name of two lines', { ...valid, name: 'canary\r\nX-Admin: yes' }, /^name: must not contain control/],
  ['half a surrogate pair as a name', { ...valid, name: '\ud800' }, /^name/],
  [
    'a member that is not known',
    { ...valid, canary: true },
    /^unknown field; allowed: email, password, name$/,
  ],
  ['a state of its own', { ...valid, state: 'active' }, /^unknown field; allowed: email, password, name$/],
  ['an array', [valid], /./],
  ['null', null, /./],
  ['a string', 'canary', /./],
]

test.each(REFUSED)(
  'a signup with %s is refused with an answer that says what to fix',
  async (_, body, detail) => {
    const before = await customers()
    await expectRefused(await signUp(body), 400, detail, before)
  },
)

const UNREADABLE: [
  name: string,
  body: NonNullable<RequestInit['body']>,
  type: string | undefined,
  detail: RegExp,
][] = [
  ['as a form', new URLSearchParams(valid), undefined, /send JSON/],
  ['as text', JSON.stringify(valid), 'text/plain', /send JSON/],
  ['as a type that only begins like JSON', JSON.stringify(valid), 'application/jsonp', /send JSON/],
  ['of broken JSON', '{"email":"canary@example.com",', 'application/json', /not valid JSON/],
  ['of nothing', '', 'application/json', /not valid JSON/],
  ['that is not UTF-8', Uint8Array.of(0x22, 0xff, 0x22), 'application/json', /not UTF-8/],
  ['with __proto__', '{"__proto__":{"canary":1},"email":"a@b.de"}', 'application/json', /__proto__/],
  ['with a nested __proto__', '{"name":{"__proto__":{"canary":1}}}', 'application/json', /__proto__/],
  ['with an escaped __proto__', '{"\\u005f_proto__":{"canary":1}}', 'application/json', /__proto__/],
  ['with a repeated email', '{"email":"a@b.de","email":"c@d.de"}', 'application/json', /is repeated/],
  ['with constructor', '{"constructor":{"prototype":{"canary":1}}}', 'application/json', /constructor/],
]

test.each(UNREADABLE)('a signup %s is refused', async (_, body, type, detail) => {
  const before = await customers()
  const headers = type === undefined ? {} : { 'Content-Type': type }
  const answer = await assay.request('/api/auth/signup', { method: 'POST', headers, body })
  await expectRefused(answer, 400, detail, before)
  expect(Object.hasOwn(Object.prototype, 'canary')).toBe(false)
})

/** In chunks and without a Content-Length, as a client sends a body that it generates. */
function streamed(text: string): RequestInit {
  const bytes = Buffer.from(text)
  let sent = 0
  const pull = (controller: ReadableStreamDefaultController<Uint8Array>) => {
    if (sent >= bytes.length) return controller.close()
    controller.enqueue(bytes.subarray(sent, sent + 1000))
    sent += 1000
  }
  return { body: new ReadableStream({ pull }), duplex: 'half' } as RequestInit
}

const LIMIT = 16 * 1024
const PADDING = LIMIT - tooMuch(0).length

test.each([
  ['with its length', (text: string) => ({ body: text, length: String(Buffer.byteLength(text)) })],
  ['in pieces', (text: string) => ({ ...streamed(text), length: undefined })],
  ['in pieces that claim to be short', (text: string) => ({ ...streamed(text), length: '10' })],
])('a body of at most 16 KiB is accepted when it is sent %s', async (_, sending) => {
  const post = (text: string) => {
    const { length, ...init } = sending(text)
    const headers = { 'Content-Type': 'application/json', ...(length && { 'Content-Length': length }) }
    return assay.request('/api/auth/signup', { method: 'POST', headers, ...init })
  }
  const before = await customers()
  // The longest accepted body fails because of its name.
  await expectRefused(await post(tooMuch(PADDING)), 400, /^name/, before)
  await expectRefused(await post(tooMuch(PADDING + 1)), 413, /16384 bytes/, before)
})

test('a huge chunked body is refused over a real socket before all of it has arrived', async () => {
  const { url } = await assay.serve()
  const piece = new Uint8Array(64 * 1024).fill(0x20)
  let sent = 0
  const body = new ReadableStream({
    pull: controller => (sent++ < 1_600 ? controller.enqueue(piece) : controller.close()),
  })
  const headers = { 'Content-Type': 'application/json' }
  const init = { method: 'POST', headers, body, duplex: 'half' } as RequestInit
  const status = await fetch(`${url}/api/auth/signup`, init).then(
    response => response.status,
    () => 'cut off',
  )
  expect([413, 'cut off']).toContain(status)
  expect(sent).toBeLessThan(1_600)
})

test('an email is the same in any case and with spaces around it', async () => {
  const { status, json } = await signUp({ email: '  Mixed.Case@Example.COM ', password: PASSWORD })
  expect(status).toBe(201)
  expect(json.customer.email).toBe('mixed.case@example.com')
  for (const email of ['mixed.case@example.com', ' MIXED.CASE@EXAMPLE.COM\t']) {
    expect((await signUp({ email, password: 'another password' })).status).toBe(409)
    expect((await assay.postJson('/api/auth/login', { email, password: PASSWORD })).status).toBe(200)
  }
})

test('a taken email is 409, even when twenty signups take it at the same moment', async () => {
  const email = 'race@example.com'
  const racers = Array.from({ length: 20 }, () => signUp({ email, password: PASSWORD }))
  const statuses = (await Promise.all(racers)).map(({ status }) => status)
  expect(statuses.filter(status => status === 201)).toHaveLength(1)
  expect(statuses.filter(status => status === 409)).toHaveLength(19)
})

test('where signup is closed, nobody can sign up, and existing customers can log in', async () => {
  const closed = await world.replica({ SIGNUP: 'closed' })
  const customer = await assay.signUp()
  const before = await customers()
  for (const email of ['nobody@example.com', customer.email]) {
    const { status, json } = await closed.postJson('/api/auth/signup', { email, password: PASSWORD })
    expect([status, json.error]).toEqual([403, 'signup_closed'])
  }
  expect(await customers()).toBe(before)
  expect((await logIn(closed, customer)).access_token).toBeTruthy()
})

const withoutId = ({ status, text, headers }: Answer) => ({
  status,
  text: text.replaceAll(headers.get('x-request-id')!, 'ID'),
  headers: [...headers].filter(([name]) => name !== 'x-request-id'),
})

test('a wrong password and an unknown email get identical answers, byte for byte', async () => {
  const { email } = await assay.signUp()
  const wrong = await assay.postJson('/api/auth/login', { email, password: 'a wrong password' })
  expect([wrong.status, wrong.json.error]).toEqual([401, 'invalid_credentials'])
  expect(wrong.headers.get('www-authenticate')).toBe('Bearer realm="assay"')
  for (const unknown of ['unknown@example.com', 'no address', '', "' or 1=1 --"]) {
    const answer = await assay.postJson('/api/auth/login', { email: unknown, password: 'a wrong password' })
    expect(withoutId(answer)).toEqual(withoutId(wrong))
  }
})

test('a disabled customer learns that it is disabled only with the right password', async () => {
  const { id, email, password } = await assay.signUp()
  await setState(world, id, 'disabled', [assay])
  const right = await assay.postJson('/api/auth/login', { email, password })
  expect([right.status, right.json.error]).toEqual([403, 'customer_disabled'])
  const wrong = await assay.postJson('/api/auth/login', { email, password: 'a wrong password' })
  expect(wrong.status).toBe(401)
  await setState(world, id, 'active', [assay])
  expect((await assay.postJson('/api/auth/login', { email, password })).status).toBe(200)
})

test('a customer that reads its own account gets no secrets', async () => {
  const customer = await assay.signUp()
  const { status, json, headers } = await assay.get('/api/auth/me', customer.accessToken)
  expect(status).toBe(200)
  expect(Object.keys(json).sort()).toEqual(['created_at', 'email', 'id', 'state'])
  expect(headers.get('cache-control')).toBe('no-store')
})

test("a user's token does not reveal its customer's account", async () => {
  const customer = await assay.signUp()
  for (const token of [await customer.session(), (await customer.issue()).json]) {
    const { status, json, text } = await assay.get('/api/auth/me', token.access_token)
    expect([status, json.error]).toEqual([403, 'insufficient_scope'])
    expect(text).not.toContain(customer.email)
  }
})

test.each([
  ['nothing', {}, 'Bearer realm="assay"'],
  ['garbage', bearer('garbage'), 'Bearer realm="assay", error="invalid_token"'],
])('a request with %s cannot read the account', async (_, headers, challenge) => {
  const answer = await assay.request('/api/auth/me', { headers })
  expect(answer.status).toBe(401)
  expect(answer.headers.get('www-authenticate')).toBe(challenge)
})
