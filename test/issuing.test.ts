import { once } from 'node:events'
import { globSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { bash, killAll } from './support/npm.ts'
import {
  blockOf,
  blocksOf,
  fencedBlocks,
  type Program,
  startProgram,
  writeProgram,
} from './support/page-blocks.ts'
import { freePort } from './support/port.ts'
import { type Running, startAssay, stopAll, until } from './support/process.ts'
import { copyInstallation } from './support/templates.ts'
import { bearer, type Tokens } from './support/world.ts'

/** The backends of docs/issuing.md as they stand there, each in a process of its own, beside a real Assay. */

const PAGE = 'docs/issuing.md'
/** The rights that the page tells to give. */
const MAY = ['create', 'issue', 'refresh', 'revoke', 'sessions', 'rotate', 'disable']

const folder = mkdtempSync(join(tmpdir(), 'assay-issuing-'))
const blocks = blocksOf('issuing.md')
const programs: Program[] = []
let assay: Running
let operator: string

beforeAll(async () => {
  writeProgram(folder, blocks)
  assay = await startAssay({ DATA_DIR: copyInstallation(join(folder, 'data')) })
  operator = readFileSync(join(folder, 'data/admin.token'), 'utf8').trim()
})
afterAll(async () => {
  const ends = programs.map(({ child }) => once(child, 'close'))
  for (const { child } of programs) child.kill('SIGKILL')
  killAll()
  await Promise.all([...ends, stopAll()])
  rmSync(folder, { recursive: true })
})

/** Starts a backend with a service that has these rights. */
async function startBackend(file: string, name: string, may: string[] = MAY): Promise<Program> {
  const { credential } = await ofOperator('POST', '/admin/services', { name, may })
  const settings = { ASSAY_URL: assay.url, ASSAY_CREDENTIAL: credential }
  const program = await startProgram(join(folder, file), settings)
  programs.push(program)
  return program
}

async function ofOperator(method: string, path: string, body: object = {}) {
  const response = await fetch(assay.url + path, {
    method,
    headers: { ...bearer(operator), 'Content-Type': 'application/json' },
    body: JSON.stringify(body),
  })
  const text = await response.text()
  return text === '' ? {} : JSON.parse(text)
}

/** What a browser or an app does: how it keeps its refresh token is all in which they differ. */
interface Device {
  accessToken: string
  refreshToken: string
}
type Keep = 'cookie' | 'body'

async function call(
  { url }: Program,
  method: string,
  path: string,
  { body, headers = {} }: { body?: object; headers?: Record<string, string> } = {},
) {
  const response = await fetch(url + path, {
    method,
    headers: { ...headers, ...(body && { 'Content-Type': 'application/json' }) },
    ...(body && { body: JSON.stringify(body) }),
  })
  const text = await response.text()
  const { status, headers: answered } = response
  return { status, headers: answered, json: text.startsWith('{') ? JSON.parse(text) : {} }
}
type Answer = Awaited<ReturnType<typeof call>>

function deviceFrom(keep: Keep, { headers, json }: Answer): Device {
  const cookie = /^refresh_token=([^;]+); Max-Age=2592000; Path=\/session; .*HttpOnly; SameSite=Strict$/
  const kept = keep === 'body' ? json.refresh_token : cookie.exec(headers.get('set-cookie') ?? '')?.[1]
  expect(kept).toEqual(expect.any(String))
  expect(headers.get('cache-control')).toBe('no-store')
  if (keep === 'cookie') expect(json).not.toHaveProperty('refresh_token')
  return { accessToken: json.access_token, refreshToken: kept }
}

const withRefreshToken = (keep: Keep, { refreshToken }: Device) =>
  keep === 'body'
    ? { body: { refresh_token: refreshToken } }
    : { headers: { Cookie: `theme=dark; refresh_token=${refreshToken}` } }

const USER = { tenant: 'blue', user: 'ann', password: 'correct horse battery' }

describe.each([
  ['express.js', 'cookie'],
  ['hono.js', 'body'],
] as [string, Keep][])('%s', (file, keep) => {
  const name = file.replace('.js', '')
  let backend: Program
  let customer: string

  beforeAll(async () => {
    backend = await startBackend(file, name)
    const created = await call(backend, 'POST', '/tenants', {
      body: { ...USER, email: `owner@${name}.example` },
    })
    expect(created.status).toBe(201)
    customer = created.json.customer
  })

  const logIn = async () => deviceFrom(keep, await call(backend, 'POST', '/session', { body: USER }))
  const refresh = (device: Device) =>
    call(backend, 'POST', '/session/refresh', withRefreshToken(keep, device))
  const orders = (token: string) => call(backend, 'GET', '/orders', { headers: bearer(token) })
  const statusOf = async (device: Device) => (await orders(device.accessToken)).status

  test('logs a user in, who is known by the token from then on', async () => {
    const device = await logIn()
    expect((await orders(device.accessToken)).json).toEqual({ ordersOf: { customer, subject: 'ann' } })
  })

  test('lets nobody in without a token, or with a wrong one or a wrong password', async () => {
    for (const headers of [{}, bearer('garbage'), bearer((await logIn()).refreshToken)])
      expect((await call(backend, 'GET', '/orders', { headers })).status).toBe(401)
    for (const wrong of [{ password: 'wrong' }, { user: 'bob' }, { tenant: 'red' }, { password: undefined }])
      expect((await call(backend, 'POST', '/session', { body: { ...USER, ...wrong } })).status).toBe(401)
  })

  test('refreshes a session, and gives a lost answer again', async () => {
    const device = await logIn()
    await refresh(device)
    const next = deviceFrom(keep, await refresh(device))
    expect(await statusOf(next)).toBe(200)
    expect((await refresh(next)).status).toBe(200)
  })

  test('logs one device out, and no other', async () => {
    const [here, there] = [await logIn(), await logIn()]
    expect((await call(backend, 'DELETE', '/session', withRefreshToken(keep, here))).status).toBe(204)
    expect([await statusOf(here), await statusOf(there)]).toEqual([401, 200])
    const refused = await refresh(here)
    expect([refused.status, refused.json]).toEqual([401, { error: 'the session has ended; log in again' }])
    if (keep === 'cookie')
      expect(refused.headers.get('set-cookie')).toMatch(/^refresh_token=; .*Expires=Thu, 01 Jan 1970/)
    expect((await refresh(there)).status).toBe(200)
  })

  test('logs a user out on all devices', async () => {
    const devices = [await logIn(), await logIn()]
    const headers = bearer(devices[0]!.accessToken)
    expect((await call(backend, 'DELETE', '/sessions', { headers })).status).toBe(204)
    for (const device of devices) {
      expect(await statusOf(device)).toBe(401)
      expect((await refresh(device)).status).toBe(401)
    }
    expect(await statusOf(await logIn())).toBe(200)
  })

  test('creates a tenant once, however often it is asked, and refuses an address that another has', async () => {
    const body = { ...USER, email: `owner@${name}.example` }
    expect((await call(backend, 'POST', '/tenants', { body })).json).toEqual({ customer })
    const other = await call(backend, 'POST', '/tenants', { body: { ...body, tenant: 'green' } })
    expect([other.status, other.json]).toEqual([409, { error: 'this e-mail address is taken' }])
  })

  test('answers 403 while the operator has disabled the tenant', async () => {
    const device = await logIn()
    await ofOperator('POST', `/admin/customers/${customer}/disable`)
    expect((await call(backend, 'POST', '/session', { body: USER })).status).toBe(403)
    expect(await statusOf(device)).toBe(401)
    await ofOperator('POST', `/admin/customers/${customer}/enable`)
    expect(await statusOf(await logIn())).toBe(200)
  })

  test('with a service that lacks a right, answers 500 and tells its caller nothing of it', async () => {
    const weak = await startBackend(file, `${name}-weak`, ['refresh'])
    const answer = await call(weak, 'POST', '/tenants', { body: { ...USER, email: 'x@example.com' } })
    expect([answer.status, answer.json]).toEqual([500, { error: 'internal error' }])
  })

  test('answers 503, and never 401, while Assay is stopped', async () => {
    const device = await logIn()
    const begun = await refresh(device)
    assay.child.kill('SIGSTOP')
    onTestFinished(() => void assay.child.kill('SIGCONT'))
    const answers = await Promise.all([
      refresh(device),
      orders(begun.json.access_token),
      call(backend, 'POST', '/session', { body: USER }),
    ])
    expect(answers.map(({ status }) => status)).toEqual([503, 503, 503])
    for (const { headers } of answers) expect(headers.get('set-cookie')).toBeNull()
    assay.child.kill('SIGCONT')
    await until('Assay answers again', async () => (await refresh(device)).status === 200)
  })
})

test('the page’s command creates a service with those rights', async () => {
  const command = blockOf(PAGE, `npm run -s assay -- services create --name shop-api --may ${MAY.join(',')}`)
  const created = bash(command, { ASSAY_URL: assay.url, ADMIN_TOKEN: operator })
  expect(await created.exited).toBe(0)
  expect(created.output()).toMatch(/^credential /m)
})

test.each([
  ['invalid_grant', () => refreshEnded()],
  ['not_found', () => fetch(`${assay.url}/admin/customers/${'a'.repeat(16)}`, { headers: bearer(operator) })],
] as const)('the page shows the answer for %s', async (code, request) => {
  const shown = fencedBlocks(PAGE)
    .filter(({ fence }) => fence === '```json')
    .map(({ text }) => JSON.parse(text))
    .find(({ error }) => error === code)
  const answer = (await (await request()).json()) as object
  expect(Object.keys(answer)).toEqual(Object.keys(shown))
  expect({ ...answer, request_id: shown.request_id }).toEqual(shown)
})

async function refreshEnded() {
  const post = (path: string, body: object | URLSearchParams, token: string) => {
    const isForm = body instanceof URLSearchParams
    const headers = { ...bearer(token), ...(!isForm && { 'Content-Type': 'application/json' }) }
    return fetch(assay.url + path, { method: 'POST', headers, body: isForm ? body : JSON.stringify(body) })
  }
  const { api_key } = await ofOperator('POST', '/admin/customers', { email: 'ended@example.com' })
  const { refresh_token } = (await (await post('/issue', { refresh: true }, api_key)).json()) as Tokens
  await post('/revoke', new URLSearchParams({ token: refresh_token }), api_key)
  return post('/refresh', new URLSearchParams({ refresh_token }), api_key)
}

test('the page’s command starts Assay with the operator’s token in its folder', async () => {
  const TMPDIR = mkdtempSync(join(folder, 'tmp-'))
  const port = String(await freePort())
  const command = blockOf(PAGE, 'DATA_DIR=$(mktemp -d) PORT=3100 npm start', { 3100: port })
  const server = bash(command, { TMPDIR })
  const isReady = () =>
    fetch(`http://127.0.0.1:${port}/readyz`).then(
      ({ ok }) => ok,
      () => false,
    )
  await until('it is ready', isReady)
  expect(globSync('tmp.*/admin.token', { cwd: TMPDIR })).toHaveLength(1)
  server.interrupt()
  await server.exited
})
