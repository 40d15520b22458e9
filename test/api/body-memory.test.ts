import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import { forgetBatches } from '../support/forget-batches.ts'
import { dial, lines, parseAnswer } from '../support/wire.ts'
import {
  basic,
  bearer,
  type Customer,
  makeWorld,
  type Replica,
  SERVICE,
  type World,
} from '../support/world.ts'

/** Slow bodies over real sockets: how many the server holds at once, and that each one is released. */

const MIB = 1024 * 1024

let world: World
let assay: Replica
let customer: Customer
/** A different credential for each body, of nine customers in turn. */
let apiKeys: string[]
let port: number

beforeAll(async () => {
  world = await makeWorld()
  assay = await world.replica()
  const customers: Customer[] = []
  while (customers.length < 9) customers.push(await assay.signUp())
  customer = customers[0]!
  apiKeys = customers.map(({ apiKey }) => apiKey)
  while (apiKeys.length < 66) apiKeys.push(await newApiKey(customers[apiKeys.length % customers.length]!))
})
beforeEach(async () => {
  port = (await assay.serve()).port
  await forgetBatches(assay)
})
afterAll(() => world.stop())

const newApiKey = async ({ accessToken }: Customer): Promise<string> =>
  (await assay.postJson('/api/keys', {}, bearer(accessToken))).json.api_key

const held = () => assay.bodyMemory.bytes
const expectHeld = (bytes: number) => expect.poll(held, { interval: 5 }).toBe(bytes)

interface Sending {
  path?: string
  authorization: string
  /** The client's address as reported by the trusted proxy. */
  from?: string
  body: string
}

/** A request without the last byte of its body. */
async function withhold({ path = '/introspect/batch', authorization, from = '192.0.2.1', body }: Sending) {
  const wire = await dial(port)
  const headers = {
    Authorization: authorization,
    'X-Forwarded-For': from,
    'Content-Type': 'application/json',
    'Content-Length': String(body.length),
  }
  wire.write(lines(`POST ${path}`, headers) + body.slice(0, -1))
  const answer = async () => parseAnswer(await wire.rest())
  const finish = () => {
    wire.write(body.slice(-1))
    return answer()
  }
  return { ...wire, answer, finish }
}

/** The answer to a request whose last byte never arrives. */
const sendMost = async (sending: Sending) => (await withhold(sending)).answer()

const batch = (bytes = 100) => {
  const empty = '{"tokens":[""]}'.length
  return `{"tokens":["${'x'.repeat(bytes - empty)}"]}`
}
const byKey = (index: number, more: Partial<Sending> = {}): Sending => ({
  authorization: bearer(apiKeys[index]!).Authorization,
  body: batch(),
  ...more,
})
const byServer = (more: Partial<Sending> = {}): Sending => ({
  authorization: basic(SERVICE.id, SERVICE.secret),
  body: batch(),
  ...more,
})
const send = async (sending: Sending) => (await withhold(sending)).finish()

function expectTooMany(answer: Awaited<ReturnType<typeof send>>, description: RegExp) {
  expect([answer.status, answer.headers['retry-after']]).toEqual([429, '1'])
  const { error, error_description } = JSON.parse(answer.body)
  expect([error, error_description]).toEqual(['too_many_requests', expect.stringMatching(description)])
}

test('a second batch of a credential waits a second for the first, and then gets 429', async () => {
  const first = await withhold(byServer())
  await expectHeld(99)
  expectTooMany(await send(byServer({ from: '192.0.2.2' })), /another request of this credential/)
  expect((await send(byKey(0))).status).toBe(200)
  expect((await first.finish()).status).toBe(200)
  expect((await send(byServer())).status).toBe(200)
})

test('concurrent batches of one credential are answered one after another', async () => {
  const first = await withhold(byKey(0))
  await expectHeld(99)
  const others = await Promise.all(Array.from({ length: 10 }, () => withhold(byKey(0))))
  const answers = [first, ...others].map(each => each.finish())
  expect((await Promise.all(answers)).map(({ status }) => status)).toEqual(Array(11).fill(200))
})

test('more than 32 batches of one credential do not wait', async () => {
  const first = await withhold(byKey(0))
  await expectHeld(99)
  const statuses: number[] = []
  const others = Array.from({ length: 40 }, async () => statuses.push((await send(byKey(0))).status))
  await expect.poll(() => statuses.length, { interval: 5 }).toBe(8)
  expect((await first.finish()).status).toBe(200)
  await Promise.all(others)
  expect(statuses).toEqual([...Array(8).fill(429), ...Array(32).fill(200)])
})

test('a batch whose client disconnects makes room for the next', async () => {
  const first = await withhold(byKey(0))
  await expectHeld(99)
  const second = await withhold(byKey(0))
  const third = await withhold(byKey(0))
  second.destroy()
  first.destroy()
  expect((await third.finish()).status).toBe(200)
  await expectHeld(0)
})

test('one address may have 8 MiB of bodies in progress, with any number of credentials', async () => {
  const slow = await Promise.all(
    [1, 2, 3, 4, 5, 6, 7, 8].map(each => withhold(byKey(each, { body: batch(MIB) }))),
  )
  await expectHeld(8 * MIB)
  expectTooMany(await sendMost(byKey(9)), /too many bytes of your requests/)
  const login = { path: '/api/auth/login', authorization: '', body: '{"email":"a@b.de","password":"x"}' }
  const refused = await sendMost(login)
  expect([refused.status, refused.headers['retry-after']]).toEqual([429, '1'])
  // A body that arrives at once does not wait.
  expect((await send(login)).status).toBe(401)
  expect((await send({ ...login, from: '198.51.100.1' })).status).toBe(401)
  expect((await send(byKey(9, { from: '198.51.100.1' }))).status).toBe(200)
  slow[0]!.destroy()
  await expectHeld(7 * MIB)
  expect((await send(byKey(9))).status).toBe(200)
  const answers = await Promise.all(slow.slice(1).map(each => each.finish()))
  expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([200]))
  expect(held()).toBe(0)
})

test('one credential may have 2 MiB of bodies in progress, from any number of addresses', async () => {
  const issue = { path: '/issue', body: `{"subject":"u"${' '.repeat(16 * 1024 - 15)}}` }
  const from = (each: number) => `192.0.2.${each}`
  const big = await withhold(byKey(0, { body: batch(MIB), from: from(200) }))
  await expectHeld(MIB)
  const slow = await Promise.all(
    Array.from({ length: 64 }, (_, each) => withhold(byKey(0, { ...issue, from: from(each) }))),
  )
  await expect.poll(held, { interval: 5 }).toBeGreaterThan(2 * MIB - 100)
  const refused = await sendMost(byKey(0, { ...issue, from: from(201) }))
  expectTooMany(refused, /too many bytes of your requests/)
  expect((await send(byKey(1, { ...issue, from: from(201) }))).status).toBe(200)
  for (const each of [big, ...slow]) each.destroy()
  await expectHeld(0)
})

test('all clients together may have 64 MiB of bodies in progress; beyond that the answer is 503, and /verify is unaffected', async () => {
  const from = (each: number) => `198.51.100.${each >> 3}`
  const slow: Awaited<ReturnType<typeof withhold>>[] = []
  for (let each = 0; each < 64; each++) {
    slow.push(await withhold(byKey(each, { body: batch(MIB), from: from(each) })))
    if (slow.length % 32 > 0) continue
    await expectHeld(slow.length * MIB)
    await forgetBatches(assay)
  }
  const { status, headers, body } = await sendMost(byKey(65, { from: '203.0.113.9' }))
  expect([status, headers['retry-after']]).toEqual([503, '1'])
  expect(JSON.parse(body)).toMatchObject({
    error: 'temporarily_unavailable',
    error_description: expect.stringMatching(/processing too many request bytes/),
  })
  expect((await assay.verify(customer.accessToken)).status).toBe(200)
  for (const each of slow) each.destroy()
  await expectHeld(0)
  expect((await send(byKey(65, { from: '203.0.113.9' }))).status).toBe(200)
})

test('a body in one-byte chunks takes no more memory than a whole one', async () => {
  const wire = await dial(port)
  const headers = {
    ...bearer(customer.apiKey),
    'Content-Type': 'application/json',
    'Transfer-Encoding': 'chunked',
  }
  wire.write(lines('POST /introspect/batch', headers))
  const body = batch(20_000)
  for (const byte of body.slice(0, -1)) wire.write(`1\r\n${byte}\r\n`)
  await expect.poll(held, { interval: 5 }).toBeGreaterThanOrEqual(20_000 - 1)
  expect(held()).toBeLessThanOrEqual(2 * 20_000)
  wire.write('1\r\n}\r\n0\r\n\r\n')
  expect(parseAnswer(await wire.rest()).body).toBe('{"tokens":[{"active":false}]}')
})

test.each([
  ['refused for its size', 'x'.repeat(16 * 1024 + 1), 413],
  ['that is no JSON', '{', 400],
  ['that is answered', '{}', 200],
])('no memory stays reserved for a body %s', async (_, body, status) => {
  expect((await send(byKey(0, { path: '/issue', body }))).status).toBe(status)
  expect(held()).toBe(0)
})
