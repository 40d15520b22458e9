import { randomInt } from 'node:crypto'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { control } from '../support/database.ts'
import { type Running, startAssay, stopAll, until } from '../support/process.ts'
import { copyDatabase } from '../support/templates.ts'

/** Milliseconds. */
const N = 1_000
let url: string
let drop: () => Promise<void>
let one: Running
let two: Running

beforeAll(async () => {
  const made = await copyDatabase()
  url = made.url
  drop = made.drop
  // Both start at the same time on an empty database: they race for its migrations and its installation.
  const both = await Promise.all([startAssay(settings()), startAssay(settings())])
  one = both[0]
  two = both[1]
})
afterAll(async () => {
  await stopAll()
  await drop()
})

const settings = () => ({
  DATABASE_URL: url,
  MASTER_KEYS: `m1:${Buffer.alloc(32, 'a master key of a test').toString('base64')}`,
  ADMIN_TOKEN: 'operator-Qm8sVx2Lk9Tz4Wb7Rf1Yc6Hn3Jd5',
  ISSUER: 'http://assay.test',
  MAX_STALENESS: `${N}ms`,
})

async function post(at: Running, path: string, body: object | URLSearchParams, token?: string) {
  const form = body instanceof URLSearchParams
  const response = await fetch(at.url + path, {
    method: 'POST',
    headers: {
      ...(form ? {} : { 'Content-Type': 'application/json' }),
      ...(token === undefined ? {} : { Authorization: `Bearer ${token}` }),
    },
    body: form ? body : JSON.stringify(body),
  })
  // biome-ignore lint/suspicious/noExplicitAny: the body of any route.
  return { status: response.status, json: (await response.json()) as any }
}

async function verify(at: Running, token: string): Promise<number> {
  const response = await fetch(`${at.url}/verify`, { headers: { Authorization: `Bearer ${token}` } })
  return response.status
}

async function signUp(at: Running) {
  const email = `${randomInt(2 ** 40)}@example.com`
  const { json } = await post(at, '/api/auth/signup', { email, password: 'a long password' })
  const key = json.api_key as string
  const newToken = async () => (await post(at, '/issue', {}, key)).json.access_token as string
  const revoke = (token: string, wait?: 'all') =>
    post(at, '/revoke', new URLSearchParams({ token, ...(wait && { wait }) }), key)
  return { newToken, revoke }
}

test('two that start at the same time on an empty database are both ready, and form one installation', async () => {
  for (const { url } of [one, two]) expect((await fetch(`${url}/readyz`)).status).toBe(200)
  const { newToken } = await signUp(one)
  expect(await verify(two, await newToken())).toBe(200)
  const sql = control(url)
  expect(await sql`select id from assay.installation`).toHaveLength(1)
  expect(await sql`select id from assay.replicas where seen_at > assay.now() - interval '1 s'`).toHaveLength(
    2,
  )
  await sql.end()
})

test('a revocation on one process is refused by the other within the bound', async () => {
  const { newToken, revoke } = await signUp(one)
  for (let round = 0; round < 3; round++) {
    const token = await newToken()
    expect(await verify(two, token)).toBe(200)
    await revoke(token)
    const acknowledged = performance.now()
    let sent = acknowledged
    await until('the other refuses it', async () => {
      sent = performance.now()
      return (await verify(two, token)) === 401
    })
    expect(sent - acknowledged).toBeLessThan(N + 50)
  }
})

test('with wait=all a revocation on one process is refused by the other as soon as it is answered', async () => {
  const { newToken, revoke } = await signUp(one)
  for (let round = 0; round < 3; round++) {
    const token = await newToken()
    expect(await verify(two, token)).toBe(200)
    expect((await revoke(token, 'all')).status).toBe(200)
    expect(await verify(two, token)).toBe(401)
  }
})

test('when one process is killed the other continues, and waits for it no longer than the bound', async () => {
  const { newToken, revoke } = await signUp(one)
  const [token, other] = [await newToken(), await newToken()]
  expect(await verify(two, token)).toBe(200)
  expect(await two.stop('SIGKILL')).toBe('SIGKILL')
  const began = performance.now()
  expect((await revoke(token, 'all')).status).toBe(200)
  expect(performance.now() - began).toBeLessThan(N + 500)
  expect(await verify(one, token)).toBe(401)
  expect(await verify(one, other)).toBe(200)
  two = await startAssay(settings())
  expect(await verify(two, token)).toBe(401)
  expect(await verify(two, other)).toBe(200)
})

test('the other does not wait for a process that was stopped', async () => {
  const { newToken, revoke } = await signUp(one)
  expect(await two.stop('SIGINT')).toBe(0)
  const token = await newToken()
  const began = performance.now()
  expect((await revoke(token, 'all')).status).toBe(200)
  expect(performance.now() - began).toBeLessThan(N / 2)
  const sql = control(url)
  expect(await sql`select id from assay.replicas where seen_at > assay.now() - interval '1 s'`).toHaveLength(
    1,
  )
  await sql.end()
})
