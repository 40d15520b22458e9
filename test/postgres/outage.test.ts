import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest'
import { CALL_DEADLINE_MS } from '../../db/client.ts'
import { openPostgres } from '../../db/postgres.ts'
import { direct } from '../support/database.ts'
import { holding, LOADER, linkTo, type OwnReplica, replicaOn } from '../support/holding.ts'
import { type Link, openLink } from '../support/link.ts'
import { until } from '../support/process.ts'
import { mostPolls, repeat } from '../support/repeat.ts'
import {
  type Answer,
  bearer,
  type Customer,
  makeWorld,
  type Replica,
  type Tokens,
  type World,
} from '../support/world.ts'

const N = 1_000
let world: World
let here: Replica
let customer: Customer

beforeAll(async () => {
  world = await makeWorld({ MAX_STALENESS: `${N}ms` })
  here = await world.replica()
  customer = await here.signUp()
})
afterAll(() => world.stop())

/** A replica whose link to the database can fail, and a session that it has cached. */
async function linkedReplica() {
  const link = await openLink(world.url!)
  onTestFinished(() => link.close())
  const replica = await replicaOn(world, await linkTo(link.url), { MAX_STALENESS: `${N}ms` })
  const session = await customer.session()
  expect((await replica.verify(session.access_token)).status).toBe(200)
  return { link, replica, session }
}

const json = (replica: OwnReplica, path: string, body: object, authorization = customer.apiKey) =>
  replica.request(path, {
    method: 'POST',
    headers: { ...bearer(authorization), 'Content-Type': 'application/json' },
    body: JSON.stringify(body),
  })

/** Every kind of act, and every other request that needs the database. */
const acts = (replica: OwnReplica, { refresh_token, access_token }: Tokens): Promise<Answer>[] => [
  json(replica, '/issue', {}),
  json(replica, '/issue', { refresh: true }),
  json(replica, '/api/auth/signup', { email: `${Math.random()}@example.com`, password: 'a long password' }),
  json(replica, '/api/auth/login', { email: customer.email, password: customer.password }),
  json(replica, '/api/keys', { scopes: ['read'] }, customer.accessToken),
  replica.post('/refresh', { refresh_token }),
  replica.post('/revoke', { token: access_token }, bearer(customer.apiKey)),
  replica.request('/api/sessions', { headers: bearer(customer.apiKey) }),
  replica.request('/api/auth/me', { headers: bearer(customer.accessToken) }),
]

async function timed<Result>(promise: Promise<Result>): Promise<[Result, number]> {
  const began = performance.now()
  return [await promise, performance.now() - began]
}

/** Expects only 503 with Retry-After, each within the timeout of a call and the time of a hash. */
async function expectOutage(replica: OwnReplica, session: Tokens) {
  const answers = await Promise.all(acts(replica, session).map(timed))
  for (const [{ status, headers }, took] of answers) {
    expect(status).toBe(503)
    expect(headers.get('retry-after')).toBe('1')
    expect(took).toBeLessThan(CALL_DEADLINE_MS + 1_000)
  }
}

/** Calls /verify continuously: 200 until the bound, 503 from then on, never anything else. */
async function expectBound(replica: OwnReplica, token: string, failedAt: number) {
  const statuses = new Set<number>()
  await until('the bound has passed', async () => {
    const sent = performance.now()
    const { status } = await replica.verify(token)
    statuses.add(status)
    if (status === 200) expect(sent - failedAt).toBeLessThan(N + 50)
    return status !== 200
  })
  for (let i = 0; i < 3; i++) statuses.add((await replica.verify(token)).status)
  expect([...statuses].sort()).toEqual([200, 503])
}

/** Milliseconds until everything works again. */
async function recovery(replica: OwnReplica, token: string, back: () => unknown) {
  const began = performance.now()
  await back()
  await until('verify works again', async () => (await replica.verify(token)).status === 200)
  await until(
    'acts work again',
    async () => (await json(replica, '/issue', { refresh: true })).status === 200,
  )
  return performance.now() - began
}

const AWAY: [string, (link: Link) => void][] = [
  ['refuses', link => link.refuse()],
  ['is silent', link => link.set({ swallow: true })],
]

test.each(AWAY)(
  'H29 while the database is away (it %s) tokens are valid until the bound, then unknown, and everything recovers within a second',
  async (how, cut) => {
    const { link, replica, session } = await linkedReplica()
    const failedAt = performance.now()
    cut(link)
    await Promise.all([expectBound(replica, session.access_token, failedAt), expectOutage(replica, session)])
    const [ready, waited] = await timed(replica.request('/readyz'))
    expect(waited).toBeLessThan(200)
    expect([ready.status, ready.json.checks]).toEqual([
      503,
      { accepting: 'ok', state: 'failed', database: 'failed', migrations: 'unknown' },
    ])
    expect((await replica.request('/healthz')).status).toBe(200)
    const took = await recovery(replica, session.access_token, () => link.fair())
    expect((await replica.request('/readyz')).status).toBe(200)
    process.stdout.write(`after it ${how}: everything works again ${Math.round(took)} ms after the return\n`)
    expect(took).toBeLessThan(1_000)
  },
)

test('requests without a lease cause one poll every 20 ms, even if each fails at once', async () => {
  const { link, replica, session } = await linkedReplica()
  const verify = () => replica.verify(session.access_token)
  link.refuse()
  await until('the lease has run out', async () => (await verify()).status === 503)
  const { polls } = replica.changeFeed.counts
  const took = await repeat(verify)
  expect(replica.changeFeed.counts.polls - polls).toBeLessThanOrEqual(mostPolls(took))
})

test('a replica whose first polls are not answered starts as soon as one is', async () => {
  const link = await openLink(world.url!)
  onTestFinished(() => link.close())
  const db = await linkTo(link.url)
  link.set({ swallow: true })
  const starting = replicaOn(world, db, { MAX_STALENESS: `${N}ms` })
  await until('polls were lost', () => link.counts.accepted > 2)
  await link.fair()
  const { changeFeed } = await starting
  expect(changeFeed.counts.failures).toBeGreaterThan(0)
  expect(changeFeed.hasLease()).toBe(true)
})

test('a database that loses a required migration is reached, but not ready', async () => {
  const expectNotReady = async () => {
    const replica = await replicaOn(world, world.db)
    const ready = () => replica.request('/readyz')
    await until('it is not ready', async () => (await ready()).status === 503)
    const { json } = await ready()
    expect(json.checks).toEqual({ accepting: 'ok', state: 'ok', database: 'ok', migrations: 'failed' })
  }
  await world.admin.query('update assay.migrations set created_at = created_at - 1e12')
  await expectNotReady()
  await world.admin.query('alter table assay.migrations rename to gone')
  await expectNotReady()
  await world.admin.query('alter table assay.gone rename to migrations')
  await world.admin.query('update assay.migrations set created_at = created_at + 1e12')
})

test('H29 links that are reset repeatedly interrupt answers briefly, and refuse no token', async () => {
  const { link, replica, session } = await linkedReplica()
  for (let round = 0; round < 5; round++) {
    const answers = acts(replica, await customer.session()).map(timed)
    link.resetAll()
    for (const [{ status }, took] of await Promise.all(answers)) {
      expect([200, 201, 503]).toContain(status)
      expect(took).toBeLessThan(CALL_DEADLINE_MS)
    }
    expect((await replica.verify(session.access_token)).status).toBe(200)
  }
  const took = await recovery(replica, session.access_token, () => link.resetAll())
  process.stdout.write(`after reset: everything works again ${Math.round(took)} ms later\n`)
  expect(took).toBeLessThan(1_000)
})

test('a link slower than the bound counts as no link; a faster one only delays answers', async () => {
  const { link, replica, session } = await linkedReplica()
  link.set({ delay: 60 })
  const { polls, failures } = replica.changeFeed.counts
  await until('it has polled over the slow link', () => replica.changeFeed.counts.polls > polls + 2)
  expect(replica.changeFeed.counts.failures).toBe(failures)
  expect((await replica.verify(session.access_token)).status).toBe(200)
  expect((await json(replica, '/issue', {})).status).toBe(200)
  const failedAt = performance.now()
  link.set({ delay: N })
  await expectBound(replica, session.access_token, failedAt)
  const took = await recovery(replica, session.access_token, () => link.fair())
  process.stdout.write(`after a delay of ${N} ms: everything works again ${Math.round(took)} ms later\n`)
  expect(took).toBeLessThan(1_000)
})

test('a revocation made while a replica was cut off is applied before anything else', async () => {
  const { link, replica, session } = await linkedReplica()
  link.set({ swallow: true })
  await here.postForm('/revoke', { token: session.refresh_token })
  const seen = new Set<number>()
  const look = async () => {
    const { status } = await replica.verify(session.access_token)
    seen.add(status)
    return status
  }
  await until('the bound has passed', async () => (await look()) === 503)
  seen.delete(200)
  await link.fair()
  await until('it knows', async () => (await look()) === 401)
  expect([...seen]).toEqual([503, 401])
})

test('concurrent requests for the same unknown customer over a silent link all fail within one timeout', async () => {
  const link = await openLink(direct(world.url!))
  onTestFinished(() => link.close())
  const pool = openPostgres(link.url, 400, false)
  onTestFinished(() => pool.close())
  // The change feed has its own working link: only the read of the record hangs.
  const database = holding({ ...world.db, query: pool.query })
  const replica = await replicaOn(world, database.db, { MAX_STALENESS: `${N}ms` })
  const { access_token: token } = await customer.session()
  link.set({ swallow: true })
  const answers = await Promise.all(Array.from({ length: 10 }, () => timed(replica.verify(token))))
  expect(answers.map(([{ status }]) => status)).toEqual(Array(10).fill(503))
  expect(database.asked(LOADER)).toBeGreaterThan(0)
  expect(Math.max(...answers.map(([, took]) => took))).toBeLessThan(1_000)
})
