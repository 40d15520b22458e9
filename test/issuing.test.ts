import { execFile } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
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

const ROOT = join(import.meta.dirname, '..')
const page = readFileSync(join(ROOT, 'docs/issuing.md'), 'utf8')
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
  return startBackendAt(assay.url, file, credential)
}

async function startBackendAt(url: string, file: string, credential: string): Promise<Program> {
  const settings = { ASSAY_URL: url, ASSAY_CREDENTIAL: credential }
  const program = await startProgram(join(folder, file), settings)
  programs.push(program)
  return program
}

async function ofOperator(method: string, path: string, body: object = {}) {
  const response = await fetch(assay.url + path, {
    method,
    headers: { ...bearer(operator), 'Content-Type': 'application/json' },
    ...(method !== 'GET' && { body: JSON.stringify(body) }),
  })
  const text = await response.text()
  return text === '' ? {} : JSON.parse(text)
}

/** The shell block of the page that has this text, with its ports and folders replaced. */
function shellBlock(text: string, replacements: Record<string, string | number>): string {
  const block = [...page.matchAll(/^```sh\n(.*?)^```$/gms)].find(([, code]) => code!.includes(text))![1]!
  return Object.entries(replacements).reduce((code, [from, to]) => code.replaceAll(from, String(to)), block)
}

/** Pastes commands into a shell, and returns what they print. */
async function paste(commands: string, cwd: string): Promise<string> {
  const { stdout } = await promisify(execFile)('bash', ['-c', commands], { cwd, timeout: 120_000 })
  return stdout
}

/** Acts like a browser or an app. They differ only in how they keep the refresh token. */
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
  const refreshAt = (program: Program, device: Device) =>
    call(program, 'POST', '/session/refresh', withRefreshToken(keep, device))
  const refresh = (device: Device) => refreshAt(backend, device)
  const orders = (token: string) => call(backend, 'GET', '/orders', { headers: bearer(token) })
  const statusOf = async (device: Device) => (await orders(device.accessToken)).status

  test('logs a user in, who is known by the token from then on', async () => {
    const device = await logIn()
    expect((await orders(device.accessToken)).json).toEqual({ ordersOf: { customer, subject: 'ann' } })
  })

  test('lets nobody in without a token, or with a wrong one or a wrong password', async () => {
    for (const headers of [{}, bearer('garbage'), bearer((await logIn()).refreshToken)])
      expect((await call(backend, 'GET', '/orders', { headers })).status).toBe(401)
    for (const wrong of [{ password: 'wrong' }, { user: 'bob' }, { tenant: 'red' }])
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

  test('creates a tenant whatever characters its name has', async () => {
    const body = { ...USER, tenant: 'Müller & Söhne '.repeat(4), email: `mueller@${name}.example` }
    expect((await call(backend, 'POST', '/tenants', { body })).status).toBe(201)
    expect((await call(backend, 'POST', '/session', { body })).status).toBe(200)
  })

  test('does not hand a tenant to whoever signs up again in its name', async () => {
    const body = { ...USER, user: 'eve', password: 'of eve', email: `owner@${name}.example` }
    await call(backend, 'POST', '/tenants', { body })
    expect((await call(backend, 'POST', '/session', { body })).status).toBe(401)
    await logIn()
  })

  test('answers 400 to what its caller can correct, and says what', async () => {
    const account = { ...USER, email: `owner@${name}.example` }
    const refused = async (method: string, path: string, body: object) => {
      const { status, json } = await call(backend, method, path, { body })
      expect(status).toBe(400)
      return json.error
    }
    for (const field of ['tenant', 'email', 'user', 'password'])
      expect(await refused('POST', '/tenants', { ...account, [field]: undefined })).toBe(
        `send JSON with ${field}`,
      )
    expect(await refused('POST', '/session', [])).toBe('send JSON with tenant, user, password')
    const notValid = 'this e-mail address is not valid, or the tenant exists with another one'
    expect(await refused('POST', '/tenants', { ...account, tenant: 'red', email: 'nope' })).toBe(notValid)
    expect(await refused('POST', '/tenants', { ...account, email: `other@${name}.example` })).toBe(notValid)
    if (keep === 'body')
      expect(await refused('DELETE', '/session', { refreshToken: 'x' })).toBe('send JSON with refresh_token')
  })

  test('answers 400 to a body that is not JSON', async () => {
    const headers = { 'Content-Type': 'application/json' }
    const answer = await fetch(`${backend.url}/session`, { method: 'POST', headers, body: '{' })
    expect(answer.status).toBe(400)
  })

  test('answers 429 with Retry-After when a limit of Assay is used up', async () => {
    const device = await logIn()
    await ofOperator('PUT', `/admin/customers/${customer}/policy`, { tokens_per_minute: 1 })
    onTestFinished(() => ofOperator('PUT', `/admin/customers/${customer}/policy`))
    await refresh(device)
    const { status, headers } = await refresh(device)
    expect(status).toBe(429)
    expect(headers.get('retry-after')).toMatch(/^\d+$/)
  })

  test('keeps the session of a user who refreshes while the tenant is disabled', async () => {
    const device = await logIn()
    await ofOperator('POST', `/admin/customers/${customer}/disable`)
    const { status, headers } = await refresh(device)
    expect([status, headers.get('set-cookie')]).toEqual([403, null])
    await ofOperator('POST', `/admin/customers/${customer}/enable`)
    expect((await refresh(device)).status).toBe(200)
  })

  test('answers 503 when a proxy in front of Assay answers in its place', async () => {
    const proxy = createServer((_, response) => response.writeHead(502).end('<h1>Bad Gateway</h1>'))
    onTestFinished(() => void proxy.close())
    await once(proxy.listen(0, '127.0.0.1'), 'listening')
    const { port } = proxy.address() as AddressInfo
    const behind = await startBackendAt(`http://127.0.0.1:${port}`, file, 'any')
    const answer = await refreshAt(behind, { accessToken: 'any', refreshToken: 'any' })
    expect([answer.status, answer.headers.get('retry-after')]).toEqual([503, '1'])
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
    for (const { headers } of answers) {
      expect(headers.get('set-cookie')).toBeNull()
      expect(headers.get('retry-after')).toBe('1')
    }
    assay.child.kill('SIGCONT')
    await until('Assay answers again', async () => (await refresh(device)).status === 200)
  })
})

test('the page’s commands create a service with those rights, and replace its credential and show what it did', async () => {
  const run = async (command: string) => {
    const script = bash(blockOf(PAGE, command), { ASSAY_URL: assay.url, ADMIN_TOKEN: operator })
    expect(await script.exited).toBe(0)
    return script.output()
  }
  const created = await run(`npm run -s assay -- services create --name shop-api --may ${MAY.join(',')}`)
  const [, credential] = /^credential +(\S+)$/m.exec(created)!
  const createCustomer = () =>
    fetch(`${assay.url}/admin/customers`, {
      method: 'POST',
      headers: { ...bearer(credential!), 'Content-Type': 'application/json' },
      body: JSON.stringify({ email: 'shop@example.com' }),
    })
  expect((await createCustomer()).status).toBe(201)
  const exported = async () => {
    const { events } = await ofOperator('GET', '/admin/audit?after=0&limit=1000')
    return events.some(({ actor }: { actor: string }) => actor === 'service:shop-api')
  }
  await until('the event has its place in the export, about a second later', exported)
  const rotated = await run('npm run -s assay -- services rotate shop-api --overlap 0s')
  expect(rotated).toMatch(/"type":"customer.created".*"actor":"service:shop-api"/)
  expect((await createCustomer()).status).toBe(401)
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

test('the commands of the page sign a tenant up, log its user in and refresh', async () => {
  const { url } = await startBackend('express.js', 'pasted')
  const output = await paste(shellBlock('APP=', { 'http://localhost:3002': url }), folder)
  expect(output).toMatch(
    /^\{"customer":"([a-z2-7]{16})"\}\n\{"ordersOf":\{"customer":"\1","subject":"ann"\}\}\n\{"access_token":/,
  )
})

test('the commands of the page rotate the secrets of a tenant at once', async () => {
  const { credential } = await ofOperator('POST', '/admin/services', { name: 'rotating', may: ['rotate'] })
  const created = await ofOperator('POST', '/admin/customers', { email: 'rotated@example.com' })
  const variables = `CUSTOMER=${created.customer.id} ASSAY_CREDENTIAL=${credential}\n`
  const output = await paste(
    variables + shellBlock('$CUSTOMER', { 'http://127.0.0.1:3001': assay.url }),
    folder,
  )
  expect(JSON.parse(output)).toHaveProperty('effective_at')
})

test('the commands of the page start an Assay for tests, with a credential for the backend', async () => {
  const start = shellBlock('mktemp', {
    '$(mktemp -d)': copyInstallation(join(folder, 'for-tests')),
    3100: await freePort(),
  })
  const use = `curl -s $ASSAY_URL/admin/customers -H "Authorization: Bearer $ASSAY_CREDENTIAL" \
    -H 'Content-Type: application/json' -d '{"email":"a@example.com"}'\n`
  const end = shellBlock('kill', {})
  const output = await paste(`set -e\n${start}${use}${end}wait $ASSAY`, ROOT)
  expect(JSON.parse(output)).toMatchObject({ customer: { state: 'active' } })
}, 120_000)
