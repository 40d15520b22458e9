import postgres from 'postgres'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { direct } from '../support/database.ts'
import { logLines, type Running, startAssay, stopAll, until } from '../support/process.ts'
import { copyDatabase } from '../support/templates.ts'
import { type Connection, connect, connectTo, pidOf, replaceWorker } from '../support/workers.ts'

/** Several processes on one port look like one server to clients. */

const WORKERS = 2
/** Milliseconds. */
const N = 2_000
const ADMIN_TOKEN = 'operator-Qm8sVx2Lk9Tz4Wb7Rf1Yc6Hn3Jd5'

let database: Awaited<ReturnType<typeof copyDatabase>>
let sql: postgres.Sql
let assay: Running
let one: Connection
let two: Connection
let apiKey: string

const settings = () => ({
  DATABASE_URL: database.url,
  MASTER_KEYS: `m1:${Buffer.alloc(32, 'a master key of a test').toString('base64')}`,
  ADMIN_TOKEN,
  ISSUER: 'http://assay.test',
  MAX_STALENESS: `${N}ms`,
  WORKERS: String(WORKERS),
})

beforeAll(async () => {
  database = await copyDatabase()
  sql = postgres(direct(database.url), { max: 1, onnotice: () => {} })
  assay = await startAssay(settings())
  one = await connectTo(assay, 1)
  two = await connectTo(assay, 2)
  const account = { email: 'one@example.com', password: 'a long password' }
  apiKey = (await one.ask('/api/auth/signup', { body: account })).json.api_key
})
afterAll(async () => {
  await stopAll()
  await sql.end()
  await database.drop()
})

const newToken = async (at = one) =>
  (await at.ask('/issue', { token: apiKey, body: {} })).json.access_token as string
const verify = async (at: Connection, token: string, headers = {}) =>
  (await at.ask('/verify', { token, headers })).status
const revoke = (at: Connection, token: string, wait?: 'all') =>
  at.ask('/revoke', { token: apiKey, body: new URLSearchParams({ token, ...(wait && { wait }) }) })

describe('one port', () => {
  test('is served by all workers in turn', async () => {
    const served = new Map<number, number>()
    for (let i = 0; i < 4 * WORKERS; i++) {
      const connection = connect(assay)
      const worker = await connection.worker()
      served.set(worker, (served.get(worker) ?? 0) + 1)
      connection.close()
    }
    expect([...served.keys()].sort()).toEqual([1, 2])
    for (const count of served.values()) expect(count).toBeGreaterThan(1)
  })

  test('is logged once', () => {
    const told = logLines(assay).filter(({ msg }) => msg === 'listening')
    expect(told).toEqual([expect.objectContaining({ port: assay.port, workers: WORKERS })])
    expect(told[0]).not.toHaveProperty('worker')
    expect(assay.stderr()).toBe('')
  })

  test('each worker is a replica of its own, and the primary none', async () => {
    const replicas = await sql`select id from assay.replicas where seen_at > assay.now() - interval '1 s'`
    expect(replicas).toHaveLength(WORKERS)
  })
})

describe('a revocation by one worker', () => {
  test('is refused by the other within the bound', async () => {
    for (let round = 0; round < 3; round++) {
      const token = await newToken()
      expect(await verify(two, token)).toBe(200)
      await revoke(one, token)
      const acknowledged = performance.now()
      let sent = acknowledged
      await until('the other refuses it', async () => {
        sent = performance.now()
        return (await verify(two, token)) === 401
      })
      expect(sent - acknowledged).toBeLessThan(N + 50)
    }
  })

  test('with wait=all is refused by the other once the answer has arrived', async () => {
    for (let round = 0; round < 5; round++) {
      const token = await newToken()
      expect(await verify(two, token)).toBe(200)
      expect((await revoke(one, token, 'all')).status).toBe(200)
      expect(await verify(two, token)).toBe(401)
    }
  })

  test('is applied by the other in a request with strong consistency', async () => {
    for (let round = 0; round < 5; round++) {
      const token = await newToken()
      expect(await verify(two, token)).toBe(200)
      await revoke(one, token)
      expect(await verify(two, token, { 'X-Consistency': 'strict' })).toBe(401)
    }
  })

  test('is not waited for longer than the bound when the other has just died', async () => {
    const token = await newToken()
    process.kill(pidOf(assay, 2), 'SIGKILL')
    const began = performance.now()
    expect((await revoke(one, token, 'all')).status).toBe(200)
    expect(performance.now() - began).toBeLessThan(N + 1_000)
    await until('another is there', async () => (await metric('assay_workers')) === WORKERS)
    two.close()
    two = await connectTo(assay, 2)
    expect(await verify(two, token)).toBe(401)
  })
})

test('H43 (CVE-2026-110861) of 200 parallel logins to all workers, exactly the limit reaches the hasher', async () => {
  const failures = async () =>
    (await sql`select from assay.audit_events where type = 'customer.login_failed'`).length
  const before = await failures()
  const connections = Array.from({ length: 20 }, () => connect(assay))
  const guess = { email: 'one@example.com', password: 'a guess' }
  const answers = await Promise.all(
    connections.flatMap(({ ask }) =>
      Array.from({ length: 10 }, () => ask('/api/auth/login', { body: guess })),
    ),
  )
  const workers = new Set(await Promise.all(connections.map(({ worker }) => worker())))
  for (const { close } of connections) close()
  expect(workers.size).toBe(WORKERS)
  expect(answers.filter(({ status }) => status === 401)).toHaveLength(10)
  expect(answers.filter(({ status }) => status === 429)).toHaveLength(190)
  expect((await failures()) - before).toBe(10)
})

/** The metrics of one of them, which include those of all. */
const metrics = async (at = one) => (await at.ask('/metrics', { token: ADMIN_TOKEN })).text

async function metric(name: string, labels = '', at = one): Promise<number> {
  const series = `${name}${labels} `
  const line = (await metrics(at)).split('\n').find(line => line.startsWith(series))
  return Number(line?.slice(series.length) ?? Number.NaN)
}

describe('the metrics of all', () => {
  test('count each request once, whichever worker answers it and whichever is scraped', async () => {
    const series = ['assay_requests_total', '{method="GET",route="/openapi.yaml",status="200"}'] as const
    const connections = await Promise.all(
      Array.from({ length: 12 }, async () => {
        const connection = connect(assay)
        for (let i = 0; i < 5; i++) await connection.ask('/openapi.yaml')
        return connection
      }),
    )
    expect(await metric(...series, one)).toBe(60)
    expect(await metric(...series, two)).toBe(60)
    expect(await metric('assay_request_seconds_count', '{route="/openapi.yaml"}')).toBe(60)
    for (const { close } of connections) close()
  })

  test('add values that each worker has, and show shared values once', async () => {
    await revoke(one, await newToken(), 'all')
    const [live] = await sql`select count(*)::int from assay.revocations where dead_after > assay.now()`
    expect(await metric('assay_revocations')).toBe(live?.count)
    expect(await metric('assay_database_connections')).toBe(10 * WORKERS)
    const token = await newToken()
    for (const at of [one, two]) expect(await verify(at, token)).toBe(200)
    expect(await metric('assay_customers_cached')).toBe(WORKERS)
    expect(await metric('assay_workers')).toBe(WORKERS)
    expect(await metric('assay_change_feed_age_seconds')).toBeLessThan(N / 1_000)
  })

  test('distinguish the processes where a sum would hide one of them', async () => {
    const text = await metrics()
    for (const worker of ['1', '2', 'primary'])
      for (const name of ['process_resident_memory_bytes', 'nodejs_eventloop_lag_p99_seconds'])
        expect(text).toMatch(new RegExp(`^${name}{worker="${worker}"} \\d`, 'm'))
    expect(text).toMatch(/^process_start_time_seconds{worker="1"} \d/m)
    expect(text.match(/^# TYPE assay_requests_total /gm)).toHaveLength(1)
  })

  test('lose no count when a worker dies', async () => {
    const verified = () => metric('assay_verified_total', '{outcome="ok"}')
    const token = await newToken()
    for (let i = 0; i < 7; i++) await verify(two, token)
    const before = await verified()
    const losses = await metric('assay_worker_losses_total')
    two.close()
    await replaceWorker(assay, 2)
    expect(await verified()).toBe(before)
    expect(await metric('assay_worker_losses_total')).toBe(losses + 1)
    two = await connectTo(assay, 2)
    await verify(two, token)
    expect(await verified()).toBe(before + 1)
  })

  test('are sent without a worker that hangs, whose totals stay unchanged', async () => {
    const verified = () => metric('assay_verified_total', '{outcome="ok"}')
    await verify(two, await newToken())
    const before = await verified()
    const silences = await metric('assay_worker_silences_total')
    process.kill(pidOf(assay, 2), 'SIGSTOP')
    try {
      expect(await verified()).toBe(before)
      expect(await metric('assay_worker_silences_total')).toBeGreaterThan(silences)
      expect(await metric('assay_database_connections')).toBe(10 * (WORKERS - 1))
      expect(await metrics()).not.toContain('process_resident_memory_bytes{worker="2"}')
    } finally {
      process.kill(pidOf(assay, 2), 'SIGCONT')
    }
    await until('it tells again', async () => (await metric('assay_database_connections')) === 10 * WORKERS)
    expect(await verified()).toBe(before)
  })
})

test('while the primary hangs no login is accepted uncounted or left waiting, and tokens are verified', async () => {
  const signUp = (email: string) =>
    one.ask('/api/auth/signup', { body: { email, password: 'a long password' } })
  const token = await newToken()
  process.kill(assay.pid, 'SIGSTOP')
  try {
    const began = performance.now()
    const signup = signUp('two@example.com')
    expect(await verify(two, token)).toBe(200)
    expect((await signup).status).toBe(503)
    expect((await one.ask('/metrics', { token: ADMIN_TOKEN })).status).toBe(503)
    expect(performance.now() - began).toBeLessThan(10_000)
  } finally {
    process.kill(assay.pid, 'SIGCONT')
  }
  expect((await signUp('two@example.com')).status).toBe(201)
})
