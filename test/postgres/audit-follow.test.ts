import { randomInt } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest'
import { open } from '../../db/client.ts'
import { insertEvents } from '../support/audit-order.ts'
import { makeAuthority } from '../support/certificates.ts'
import { control } from '../support/database.ts'
import { openLink } from '../support/link.ts'
import { findNginx, startNginx } from '../support/nginx.ts'
import { freePort } from '../support/port.ts'
import { type Running, startAssay, startCli, stopAll, until } from '../support/process.ts'
import { copyDatabase } from '../support/templates.ts'
import { bearer, makeWorld, READER } from '../support/world.ts'

/** Readers that wait for events, at servers that restart, drain or lose their database. */

const ADMIN_TOKEN = 'operator-Qm8sVx2Lk9Tz4Wb7Rf1Yc6Hn3Jd5'
const folder = mkdtempSync(join(tmpdir(), 'assay-'))
let database: Awaited<ReturnType<typeof copyDatabase>>
let sql: ReturnType<typeof control>

beforeAll(async () => {
  database = await copyDatabase()
  sql = control(database.url)
})
afterAll(async () => {
  await stopAll()
  await sql.end()
  await database.drop()
  rmSync(folder, { recursive: true })
})

const settings = (more: Record<string, string> = {}) => ({
  DATABASE_URL: database.url,
  MASTER_KEYS: `m1:${Buffer.alloc(32, 'a master key of a test').toString('base64')}`,
  ADMIN_TOKEN,
  ISSUER: 'http://assay.test',
  ...more,
})

const insert = (from: number, to = from) => sql.unsafe(insertEvents(from, to))

/** A request that waits at the end of the order. */
async function waitAt({ url }: Pick<Running, 'url'>, seconds = 60) {
  const ask = async (query: string) => {
    const response = await fetch(`${url}/admin/audit?${query}`, { headers: bearer(ADMIN_TOKEN) })
    // biome-ignore lint/suspicious/noExplicitAny: the body of any answer.
    const json = (await response.json()) as any
    return { status: response.status, connection: response.headers.get('connection'), json }
  }
  const { json } = await ask('after=latest')
  return { end: json.next as string, answer: ask(`after=${json.next}&wait=${seconds}s`) }
}

const actorsOf = ({ json }: { json: { events: { actor: string }[] } }) =>
  json.events.map(({ actor }) => actor)

/** Parses the lines that a follower has printed. A last line that was cut off is skipped. */
const lines = (follower: { stdout(): string }) =>
  follower
    .stdout()
    .split('\n')
    .slice(0, -1)
    .map(line => JSON.parse(line) as { actor: string; cursor: string })

/** Inserts a few events every few milliseconds, numbered from `first`. The returned function ends that, and returns the last number. */
function insertSteadily(first: number): () => Promise<number> {
  let last = first - 1
  let isStopped = false
  const inserting = (async () => {
    for (; !isStopped; await pause(randomInt(20))) {
      const count = 1 + randomInt(5)
      await insert(last + 1, last + count)
      last += count
    }
  })()
  return async () => {
    isStopped = true
    await inserting
    return last
  }
}

test('a follower loses nothing, and repeats at most its last event, while it and its server are killed', async () => {
  const port = await freePort()
  const start = () => startAssay(settings({ PORT: String(port) }))
  let server = await start()
  // Another replica orders events while this one is gone.
  await startAssay(settings())
  const cursorFile = join(folder, 'cursor')
  const run = () =>
    startCli(
      { ASSAY_URL: server.url, ADMIN_TOKEN },
      `audit --follow --json --cursor-file ${cursorFile}`.split(' '),
    )
  const followers = [run()]
  await until('it follows', () => readIfThere(cursorFile) !== '')

  const stopInserting = insertSteadily(1)
  for (let round = 0; round < 8; round++) {
    await pause(300 + randomInt(1_200))
    if (round % 3 === 1) {
      await server.stop('SIGKILL')
      server = await start()
    } else {
      await followers.at(-1)!.stop('SIGKILL')
      followers.push(run())
    }
  }
  const made = await stopInserting()
  const last = () => lines(followers.at(-1)!).at(-1)?.actor
  await until('the last event is printed', () => last() === `planted:${made}`)
  expect(await followers.at(-1)!.stop('SIGINT')).toBe(130)

  const printed = followers.map(lines).filter(each => each.length > 0)
  const kept = printed.flatMap((each, n) => {
    const before = printed[n - 1]?.at(-1)
    return each[0]!.cursor === before?.cursor ? each.slice(1) : each
  })
  expect(made).toBeGreaterThan(200)
  expect(kept.map(({ actor }) => actor)).toEqual(Array.from({ length: made }, (_, n) => `planted:${n + 1}`))
  expect(readIfThere(cursorFile)).toBe(`${kept.at(-1)!.cursor}\n`)
})

test.skipIf(!findNginx())(
  'behind nginx with TLS a follower prints every event once, while replicas and nginx end (skipped if not installed)',
  async () => {
    const authority = makeAuthority()
    onTestFinished(() => authority.remove())
    const { cert, key } = authority.sign('nginx', ['IP:127.0.0.1'], folder)
    const tls = await freePort()
    const ports = [await freePort(), await freePort()]
    const startReplica = (port: number) => startAssay(settings({ PORT: String(port) }))
    const startProxy = () =>
      startNginx({
        assay: ports,
        backend: ports[0]!,
        server: `listen 127.0.0.1:${tls} ssl; ssl_certificate ${cert}; ssl_certificate_key ${key};`,
        locations: 'location /admin/ { proxy_pass http://assay; }',
      })
    const replicas = await Promise.all(ports.map(startReplica))
    let nginx = await startProxy()
    onTestFinished(() => nginx.stop())

    const first = 1_000_001
    const cursorFile = join(folder, 'behind-nginx')
    const follower = startCli(
      { ASSAY_URL: `https://127.0.0.1:${tls}`, ADMIN_TOKEN, NODE_EXTRA_CA_CERTS: authority.file },
      `audit --follow --json --cursor-file ${cursorFile}`.split(' '),
    )
    await until('it follows', () => readIfThere(cursorFile) !== '')
    const stopInserting = insertSteadily(first)
    for (const ended of [0, 'nginx', 1, 0, 'nginx', 1] as const) {
      await pause(300 + randomInt(700))
      if (ended === 'nginx') {
        await nginx.stop()
        await pause(randomInt(500))
        nginx = await startProxy()
      } else {
        await replicas[ended]!.stop(randomInt(2) === 0 ? 'SIGKILL' : 'SIGTERM')
        replicas[ended] = await startReplica(ports[ended]!)
      }
    }
    const last = await stopInserting()
    await until('the last event is printed', () => lines(follower).at(-1)?.actor === `planted:${last}`)
    expect(lines(follower).map(({ actor }) => actor)).toEqual(
      Array.from({ length: last - first + 1 }, (_, n) => `planted:${first + n}`),
    )
    expect(await follower.stop('SIGINT')).toBe(130)
  },
)

function readIfThere(file: string): string {
  try {
    return readFileSync(file, 'utf8')
  } catch {
    return ''
  }
}

test('a request that waits at one replica is answered when an event is made at another', async () => {
  const [one, two] = await Promise.all([startAssay(settings()), startAssay(settings())])
  const { answer } = await waitAt(one!)
  const email = `${randomInt(2 ** 40)}@example.com`
  const response = await fetch(`${two!.url}/api/auth/signup`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify({ email, password: 'a long password' }),
  })
  expect(response.status).toBe(201)
  expect((await answer).json.events).toMatchObject([{ type: 'customer.signed_up' }])
})

test('SIGTERM ends the requests that wait with an empty page, and the server ends in time', async () => {
  const assay = await startAssay(settings())
  const { answer, end } = await waitAt(assay)
  const began = performance.now()
  const exited = assay.stop('SIGTERM')
  expect(await answer).toMatchObject({
    status: 200,
    connection: 'close',
    json: { events: [], next: end, more: false },
  })
  expect(await exited).toBe(0)
  expect(performance.now() - began).toBeLessThan(6_000)
})

test('with WORKERS a request is woken whichever worker has it', async () => {
  const assay = await startAssay(settings({ WORKERS: '2' }))
  const waiting = await Promise.all(Array.from({ length: 8 }, () => waitAt(assay)))
  await insert(1)
  for (const { answer } of waiting) expect(actorsOf(await answer)).toEqual(['planted:1'])
  await assay.stop('SIGINT')
})

test('a server that loses its database while a request waits answers 503, and serves again afterwards', async () => {
  const world = await makeWorld()
  const link = await openLink(world.url!)
  const db = await open({ url: link.url })
  onTestFinished(async () => {
    await world.stop()
    await db.close()
    link.close()
  })
  const assay = await world.replica({}, { link: db })
  const ask = (query: string) => assay.get(`/admin/audit?${query}`, READER)
  const { next } = (await ask('after=latest')).json
  const answer = ask(`after=${next}&wait=60s`)
  await until('it waits', () => assay.orderWaiters.size === 1)
  link.refuse()
  await assay.sequencer.run()
  const { status, json } = await answer
  expect([status, json.error]).toEqual([503, 'temporarily_unavailable'])
  expect((await ask(`after=${next}&wait=60s`)).status).toBe(503)
  await link.fair()
  await until('it answers again', async () => (await ask(`after=${next}`)).status === 200)
})
