import { IncomingMessage } from 'node:http'
import { Socket } from 'node:net'
import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest'
import { randomId } from '../../server/crypto/credentials.ts'
import { encode } from '../crypto/mutate.ts'
import { forger, kidOf } from '../support/forge.ts'
import { holding, type OwnReplica, POLL, replicaOn } from '../support/holding.ts'
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

/**
 * The cost of an answer in units that are the same on every machine: statements, waits and bytes. A change that increases
 * one must be intended. `npm run bench` measures time.
 */

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

/** A replica whose statements are counted, except the polls of the change feed. */
async function counting() {
  const link = holding(world.db)
  const replica = await replicaOn(world, link.db)
  const statements = () => link.total() - link.asked(POLL)
  return { replica, statements }
}

async function statementsOf(run: (replica: OwnReplica) => Promise<unknown>, first = run) {
  const { replica, statements } = await counting()
  await first(replica)
  const before = statements()
  await run(replica)
  return statements() - before
}

/** The statements of concurrent acts. On Postgres two run alone, and the rest together. */
const sharedStatements = () => (world.db.kind === 'embedded' ? 1 : 3)

const issue = (replica: OwnReplica, body: object = {}) =>
  replica.request('/issue', {
    method: 'POST',
    headers: { ...bearer(customer.apiKey), 'Content-Type': 'application/json' },
    body: JSON.stringify(body),
  })
const introspect = (replica: OwnReplica, token: string, authorization: string) =>
  replica.post('/introspect', { token }, { Authorization: authorization })

test('a token is verified, and introspected, without a statement', async () => {
  const own = `Bearer ${customer.apiKey}`
  const server = basic(SERVICE.id, SERVICE.secret)
  const count = await statementsOf(async replica => {
    expect((await replica.verify(tokens.access_token)).status).toBe(200)
    for (const authorization of [own, server])
      expect((await introspect(replica, tokens.access_token, authorization)).json.active).toBe(true)
  })
  expect(count).toBe(0)
})

test('a customer seen for the first time costs one', async () => {
  const count = await statementsOf(
    replica => replica.verify(tokens.access_token),
    async () => {},
  )
  expect(count).toBe(1)
})

test('customers seen at the same time share statements', async () => {
  const customers = await Promise.all(Array.from({ length: 8 }, () => assay.signUp()))
  const verified = (replica: OwnReplica) =>
    Promise.all(customers.map(({ accessToken }) => replica.verify(accessToken)))
  const count = await statementsOf(
    async replica => {
      for (const { status } of await verified(replica)) expect(status).toBe(200)
    },
    async () => {},
  )
  expect(count).toBe(sharedStatements())
})

test('a made-up token costs none, not even the first time', async () => {
  const forge = await forger(assay, customer, 'access')
  const kid = kidOf(world, randomId(10)).replace(/.$/, last => (last === 'a' ? 'b' : 'a'))
  const unknown = forge.texts(JSON.stringify({ ...forge.header, kid }), forge.claimsText)
  const count = await statementsOf(
    async replica => {
      for (const token of ['garbage', unknown, `${encode('{}')}.a.b`])
        expect((await replica.verify(token)).status).toBe(401)
    },
    async () => {},
  )
  expect(count).toBe(0)
})

test('issuing a token, starting a session and refreshing one take one statement each', async () => {
  expect(await statementsOf(replica => issue(replica))).toBe(1)
  expect(await statementsOf(replica => issue(replica, { refresh: true }))).toBe(1)
  let { refresh_token } = await customer.session()
  const count = await statementsOf(async replica => {
    const answer = await replica.post('/refresh', { refresh_token })
    expect(answer.status).toBe(200)
    refresh_token = answer.json.refresh_token
  })
  expect(count).toBe(1)
})

test('concurrent acts share statements', async () => {
  const sessions = await Promise.all(Array.from({ length: 32 }, () => customer.session()))
  const all = [
    (replica: OwnReplica) => Promise.all(sessions.map(() => issue(replica))),
    (replica: OwnReplica) => Promise.all(sessions.map(() => issue(replica, { refresh: true }))),
    (replica: OwnReplica) =>
      Promise.all(sessions.map(({ refresh_token }) => replica.post('/refresh', { refresh_token }))),
  ]
  for (const act of all) {
    const count = await statementsOf(
      async replica => {
        for (const { status } of await act(replica)) expect(status).toBe(200)
      },
      replica => issue(replica),
    )
    expect(count).toBeLessThanOrEqual(sharedStatements())
  }
})

test('an act that the database refuses fails alone, and the acts that shared its statement succeed', async () => {
  await world.admin.query(`alter table assay.audit_events add constraint no_eve check (subject <> 'eve')`)
  onTestFinished(async () => {
    await world.admin.query('alter table assay.audit_events drop constraint no_eve')
  })
  const subjects = ['alice', 'bob', 'eve', 'carol', 'dave']
  const issuing = [(subject: string) => ({ subject }), (subject: string) => ({ subject, refresh: true })]
  for (const bodyFor of issuing) {
    const { replica, statements } = await counting()
    await issue(replica)
    const before = statements()
    const answers = await Promise.all(subjects.map(subject => issue(replica, bodyFor(subject))))
    expect(answers.map(({ status }) => status)).toEqual([200, 200, 500, 200, 200])
    // Refused batches are repeated act by act: the shared statements, and one for each act in them.
    expect(statements() - before).toBe(sharedStatements() + (world.db.kind === 'embedded' ? 5 : 3))
  }
})

test('a verdict from memory is returned synchronously', async () => {
  await assay.verify(tokens.access_token)
  for (const path of ['/verify', '/verify/', '/verify/x', '/verify/x/y?scope=z'])
    for (const [token, status] of [[tokens.access_token, 200] as const, ['garbage', 401] as const]) {
      const response = assay.app.fetch(verifyRequest(path, token))
      expect(response).not.toBeInstanceOf(Promise)
      expect(response).toMatchObject({ status })
    }
})

const verifyRequest = (path: string, token: string) =>
  new Request(`http://assay.test${path}`, { headers: bearer(token) })

/** The limit for one verdict including its headers and claims; measured at about 5,600. */
const MOST_BYTES = 8_000

test(`a verdict allocates less than ${MOST_BYTES} bytes`, async () => {
  await assay.serve() // From here on Response is the adapter's, as in production.
  const request = verifyRequest('/verify', tokens.access_token)
  const incoming = new IncomingMessage(new Socket())
  Object.assign(incoming, { url: '/verify', headers: Object.fromEntries(request.headers) })
  const verify = () => assay.app.fetch(request, { incoming })
  for (let i = 0; i < 2_000; i++) verify()
  // The minimum of many measurements: a garbage collection or another allocation makes a value larger or negative.
  const tries = Array.from({ length: 40 }, () => {
    const before = process.memoryUsage().heapUsed
    for (let i = 0; i < 100; i++) verify()
    return (process.memoryUsage().heapUsed - before) / 100
  })
  const bytes = Math.min(...tries.filter(each => each > 0))
  expect(bytes).toBeGreaterThan(500)
  expect(bytes).toBeLessThan(MOST_BYTES)
})
