import { randomInt } from 'node:crypto'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { CALL_DEADLINE_MS, type Database, open } from '../../db/client.ts'
import { type Running, startAssay, stopAll, until } from '../support/process.ts'
import { copyDatabase } from '../support/templates.ts'
import { trials } from '../support/trials.ts'

/** A server in another process, whose backends are killed under load. */

const KILLS = trials(100, 10)
const CLIENTS = 8

let db: Database
let url: string
let drop: () => Promise<void>

beforeAll(async () => {
  const made = await copyDatabase()
  url = made.url
  drop = made.drop
  db = await open({ url })
})
afterEach(() => stopAll())
afterAll(async () => {
  await db.close()
  await drop()
})

const settings = () => ({
  DATABASE_URL: url,
  MASTER_KEYS: `m1:${Buffer.alloc(32, 'a master key of a test').toString('base64')}`,
  ADMIN_TOKEN: 'operator-Qm8sVx2Lk9Tz4Wb7Rf1Yc6Hn3Jd5',
  MAX_STALENESS: '2s',
})

interface Called {
  status: number
  // biome-ignore lint/suspicious/noExplicitAny: the body of any route.
  json: any
  took: number
}

function caller(assay: Running) {
  return async function call(method: string, path: string, token?: string, body?: object | URLSearchParams) {
    const began = performance.now()
    const form = body instanceof URLSearchParams
    const response = await fetch(assay.url + path, {
      method,
      headers: {
        ...(token === undefined ? {} : { Authorization: `Bearer ${token}` }),
        ...(body === undefined || form ? {} : { 'Content-Type': 'application/json' }),
      },
      ...(body === undefined ? {} : { body: form ? body : JSON.stringify(body) }),
    })
    const text = await response.text()
    const took = performance.now() - began
    return { status: response.status, json: text.startsWith('{') ? JSON.parse(text) : {}, took } as Called
  }
}

const signUp = (call: ReturnType<typeof caller>) =>
  call('POST', '/api/auth/signup', undefined, {
    email: `${randomInt(1e9)}@example.com`,
    password: 'a long password',
  })

const killAll = () =>
  db.query(
    `select pg_terminate_backend(pid) from pg_stat_activity
    where datname = current_database() and application_name = 'assay' and pid <> pg_backend_pid()`,
  )

/** One round of every kind of act by one client, which continues after a 503. */
async function everyAct(
  call: ReturnType<typeof caller>,
  { api_key: key, access_token: own }: { api_key: string; access_token: string },
  note: (called: Called) => void,
  revoked: Set<string>,
) {
  const noted = async (...args: Parameters<typeof call>) => {
    const called = await call(...args)
    note(called)
    return called
  }
  const form = (fields: Record<string, string>) => new URLSearchParams(fields)
  const { json: session } = await noted('POST', '/issue', key, { refresh: true, scope: 'read' })
  const { json: made } = await noted('POST', '/api/keys', own, { scopes: ['read'] })
  if (made.id) await noted('DELETE', `/api/keys/${made.id}`, own)
  await noted('GET', '/api/sessions', key)
  if (!session.access_token) return
  await noted('GET', '/verify', session.access_token)
  const refreshed = await noted('POST', '/refresh', undefined, form({ refresh_token: session.refresh_token }))
  await noted('POST', '/introspect', key, form({ token: session.access_token }))
  const last = refreshed.json.access_token ?? session.access_token
  const ended = await noted('POST', '/revoke', key, form({ token: last, session: 'true' }))
  if (ended.status === 200) revoked.add(last)
}

test(`H57 killing backends under load, ${KILLS} times, ends no process, and every call ends in time (porsager/postgres#1208)`, async () => {
  const assay = await startAssay(settings())
  const call = caller(assay)
  // One customer per client: a key whose answer is lost stays, and a customer may have a hundred.
  const accounts = await Promise.all(Array.from({ length: CLIENTS }, () => signUp(call)))
  const seen: Called[] = []
  const revoked = new Set<string>()
  let killing = true
  const client = async ({ json }: Called) => {
    while (killing) await everyAct(call, json, called => seen.push(called), revoked)
  }
  const clients = accounts.map(client)
  for (let kill = 0; kill < KILLS; kill++) {
    const before = seen.length
    await killAll()
    await until('the load has felt it', () => seen.length > before + 20)
  }
  killing = false
  await Promise.all(clients)
  const statuses = new Set(seen.map(({ status }) => status))
  expect([...statuses].filter(status => ![200, 201, 204, 503].includes(status))).toEqual([])
  expect(statuses).toContain(503)
  expect(Math.max(...seen.map(({ took }) => took))).toBeLessThan(CALL_DEADLINE_MS + 500)
  expect(assay.child.exitCode).toBeNull()
  expect(revoked.size).toBeGreaterThan(KILLS / 4)
  for (const token of revoked) expect((await call('GET', '/verify', token)).status).toBe(401)
  expect((await call('POST', '/issue', accounts[0]!.json.api_key, {})).status).toBe(200)
  expect(assay.stdout() + assay.stderr()).not.toMatch(/this process exits|unhandled/i)
  expect(await assay.stop('SIGINT')).toBe(0)
})
