import { setTimeout } from 'node:timers/promises'
import postgres from 'postgres'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { direct } from '../support/database.ts'
import { logLines, type Running, startAssay, stopAll, until } from '../support/process.ts'
import { openRaw } from '../support/raw.ts'
import { copyDatabase } from '../support/templates.ts'
import { connect, connectTo, isAlive, pidOf, replaceWorker } from '../support/workers.ts'

/** Several processes on one port: how they crash, and how they stop. */

let database: Awaited<ReturnType<typeof copyDatabase>>

const settings = (more: Record<string, string> = {}) => ({
  DATABASE_URL: database.url,
  MASTER_KEYS: `m1:${Buffer.alloc(32, 'a master key of a test').toString('base64')}`,
  ADMIN_TOKEN: 'operator-Qm8sVx2Lk9Tz4Wb7Rf1Yc6Hn3Jd5',
  ISSUER: 'http://assay.test',
  MAX_STALENESS: '2s',
  WORKERS: '2',
  ...more,
})
const start = () => startAssay(settings())

beforeAll(async () => {
  database = await copyDatabase()
})
afterAll(async () => {
  await stopAll()
  await database.drop()
})

const lines = (assay: Running, word: string) => logLines(assay).filter(({ msg }) => msg === word)
const REPLACED = 'a worker exited; starting another one'
const workersOf = (assay: Running) => [1, 2].map(worker => pidOf(assay, worker))
const nobodyIsLeft = (pids: number[]) => until('nobody is left', () => !pids.some(isAlive))

/** Sends requests until it is stopped; returns the statuses, 0 for a broken connection. */
function load(ask: () => Promise<{ status: number }>) {
  const statuses: number[] = []
  let stopped = false
  const done = (async () => {
    while (!stopped)
      statuses.push(
        await ask().then(
          ({ status }) => status,
          () => 0,
        ),
      )
  })()
  return {
    statuses,
    async stop() {
      stopped = true
      await done
      return statuses
    },
  }
}

const accepts = (assay: Running) =>
  openRaw(assay.port).then(
    raw => {
      raw.destroy()
      return true
    },
    () => false,
  )

/** On a new connection each time. */
async function askAnew(assay: Running, path: string) {
  const connection = connect(assay)
  try {
    return await connection.ask(path)
  } finally {
    connection.close()
  }
}

/** A refresh of which half of the body has been sent to a worker. It ends with the refusal that the token deserves. */
async function beginRefresh(assay: Running) {
  const raw = await openRaw(assay.port)
  raw.write('GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n')
  await until('the connection is with a worker', () => raw.statuses().length === 1)
  raw.write(`POST /refresh HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-www-form-urlencoded\r\n`)
  raw.write(`Content-Length: ${'refresh_token=x'.length}\r\n\r\nrefresh_`)
  const finish = () => raw.write('token=x')
  return { ...raw, finish, answer: () => raw.statuses()[1] }
}

describe('a worker that dies', () => {
  let assay: Running
  beforeAll(async () => {
    assay = await start()
  })

  test('breaks only its own connections; another takes its place and its number', async () => {
    const [one, two] = [await connectTo(assay, 1), await connectTo(assay, 2)]
    const first = pidOf(assay, 1)
    const others = load(() => two.ask('/healthz'))
    process.kill(first, 'SIGKILL')
    await expect(one.ask('/healthz')).rejects.toThrow()
    await until('its loss is told', () => lines(assay, REPLACED).length === 1)
    const anew = load(() => askAnew(assay, '/healthz'))
    await until('another is there', () => pidOf(assay, 1) !== first)
    const statuses = [...(await others.stop()), ...(await anew.stop())]
    expect(statuses.length).toBeGreaterThan(100)
    expect(new Set(statuses)).toEqual(new Set([200]))
    expect(lines(assay, REPLACED)).toEqual([
      expect.objectContaining({ worker: 1, reason: 'SIGKILL', wait: 200 }),
    ])
    await connectTo(assay, 1)
  })

  test('repeatedly is replaced after increasing delays', async () => {
    for (let kill = 0; kill < 3; kill++) await replaceWorker(assay, 2)
    const losses = lines(assay, REPLACED).filter(({ worker }) => worker === 2)
    expect(losses.map(({ wait }) => wait)).toEqual([200, 400, 800])
    const returns = lines(assay, 'a worker is listening').filter(({ worker }) => worker === 2)
    for (const [i, { time, wait }] of losses.entries())
      expect(returns[i + 1].time - time).toBeGreaterThanOrEqual(wait)
  })

  // This runs before the next tests, which request the port by its number.
  test('together with all others while one is about to listen does not lose the port', async () => {
    const before = workersOf(assay)
    const losses = () => lines(assay, REPLACED).filter(({ worker }) => worker === 1).length
    const earlier = losses()
    const sql = postgres(direct(database.url), { max: 2, onnotice: () => {} })
    await sql.begin(async lock => {
      // A start reads the master keys after its settings: it is held there, while the others give up the port that it will use.
      await lock`lock table assay.master_keys in access exclusive mode`
      process.kill(before[0]!, 'SIGKILL')
      const held = () =>
        sql`select from pg_locks where not granted and relation = 'assay.master_keys'::regclass`
      await until('another is on its way', async () => (await held()).length === 1)
      process.kill(before[1]!, 'SIGKILL')
      await until('nobody listens', async () => !(await accepts(assay)))
    })
    await sql.end()
    await until('both are back', () => workersOf(assay).every(pid => !before.includes(pid)))
    expect(losses() - earlier).toBeGreaterThanOrEqual(2)
    expect((await askAnew(assay, '/healthz')).status).toBe(200)
  })

  test('together with all others does not lose the port', async () => {
    const before = workersOf(assay)
    for (const pid of before) process.kill(pid, 'SIGKILL')
    await until('both are back', () => workersOf(assay).every(pid => !before.includes(pid)))
    expect((await askAnew(assay, '/healthz')).status).toBe(200)
  })

  test('does not delay a drain', async () => {
    const before = lines(assay, 'a worker is listening').length
    const losses = lines(assay, REPLACED).length
    process.kill(pidOf(assay, 1), 'SIGKILL')
    await until('another is coming', () => lines(assay, REPLACED).length > losses)
    expect(await assay.stop('SIGINT')).toBe(0)
    expect(lines(assay, 'a worker is listening')).toHaveLength(before)
  })
})

describe('SIGTERM', () => {
  test('drains all: not ready at once, no failing request, ended within 10 s', async () => {
    const assay = await start()
    const refresh = await beginRefresh(assay)
    const pids = workersOf(assay)

    // Like a load balancer: after the first answer that it is not ready, no new request is sent.
    const statuses: number[] = []
    let ready = true
    const clients = Array.from({ length: 4 }, async () => {
      while (ready)
        statuses.push(
          await askAnew(assay, '/healthz').then(
            ({ status }) => status,
            () => 0,
          ),
        )
    })
    const balancer = until('not ready', async () => (await askAnew(assay, '/readyz')).status === 503)
    await until('it is under load', () => statuses.length > 20)
    const began = performance.now()
    const exited = assay.stop('SIGTERM')
    await balancer
    expect(performance.now() - began).toBeLessThan(2_500)
    for (let i = 0; i < 4; i++) expect((await askAnew(assay, '/readyz')).status).toBe(503)
    ready = false
    await Promise.all(clients)
    expect(new Set(statuses)).toEqual(new Set([200]))

    // Requests just before may remain unanswered until the process ends; the test does not wait for them here.
    await until('it takes no more connections', () =>
      Promise.race([
        askAnew(assay, '/healthz').then(
          () => false,
          () => true,
        ),
        setTimeout(500, true),
      ]),
    )
    expect(performance.now() - began).toBeGreaterThan(2_500)
    refresh.finish()
    await refresh.closed
    expect(refresh.answer()).toBe(400)
    expect(await exited).toBe(0)
    expect(performance.now() - began).toBeLessThan(10_000)
    expect(
      lines(assay, 'draining')
        .map(({ worker }) => worker)
        .sort(),
    ).toEqual([1, 2, undefined])
    expect(lines(assay, REPLACED)).toEqual([])
    expect(pids.some(isAlive)).toBe(false)
  })

  test('a second one ends all at once', async () => {
    const assay = await start()
    const refresh = await beginRefresh(assay)
    const pids = workersOf(assay)
    void assay.stop('SIGTERM')
    await until('all drain', () => lines(assay, 'draining').length === 3)
    expect(await assay.stop('SIGINT')).toBe(1)
    expect(lines(assay, 'ended').filter(({ worker }) => worker !== undefined)).toEqual([])
    await nobodyIsLeft(pids)
    await refresh.closed
    expect(refresh.answer()).toBeUndefined()
  })
})

test('Ctrl-C, which reaches every process, drains once', async () => {
  const assay = await start()
  const refresh = await beginRefresh(assay)
  const pids = workersOf(assay)
  for (const pid of pids) process.kill(pid, 'SIGINT')
  const exited = assay.stop('SIGINT')
  await until('all drain', () => lines(assay, 'draining').length === 3)
  refresh.finish()
  expect(await exited).toBe(0)
  expect(refresh.answer()).toBe(400)
  expect(lines(assay, 'draining')).toHaveLength(3)
  expect(pids.some(isAlive)).toBe(false)
})

test('when the primary is killed the workers finish their requests, and none is left behind', async () => {
  const assay = await start()
  const refreshes = [await beginRefresh(assay), await beginRefresh(assay)]
  const pids = workersOf(assay)
  process.kill(assay.pid, 'SIGKILL')
  await until('they drain', () => lines(assay, 'draining').length === 2)
  for (const { finish } of refreshes) finish()
  for (const { closed } of refreshes) await closed
  expect(refreshes.map(({ answer }) => answer())).toEqual([400, 400])
  await nobodyIsLeft(pids)
  expect(lines(assay, 'ended')).toHaveLength(2)
})
