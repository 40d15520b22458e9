import { randomInt } from 'node:crypto'
import { afterAll, beforeAll, expect, inject, test } from 'vitest'
import { ask, makeStage, N, type Stage } from '../../faults/stage.ts'
import { until } from '../support/process.ts'

/** A leaked secret is replaced at once on three servers in separate processes, each over a link that can fail. */

let stage: Stage
beforeAll(async () => {
  stage = await makeStage({ serverUrl: inject('databaseUrl'), replicas: 3 })
})
afterAll(() => stage.stop())

const REPLICAS = [0, 1, 2]
const CUT_OFF = 2

async function call(replica: number, path: string, token?: string, body?: object) {
  const response = await fetch(stage.replicas[replica]!.process.url + path, {
    method: body ? 'POST' : 'GET',
    headers: {
      ...(token !== undefined && { Authorization: `Bearer ${token}` }),
      ...(body && { 'Content-Type': 'application/json' }),
    },
    ...(body && { body: JSON.stringify(body) }),
  })
  const text = await response.text()
  // biome-ignore lint/suspicious/noExplicitAny: the body of any route.
  return { status: response.status, json: (text.startsWith('{') ? JSON.parse(text) : {}) as any }
}

async function signUp(replica: number) {
  const email = `${randomInt(2 ** 40)}@example.com`
  const { json } = await call(replica, '/api/auth/signup', undefined, { email, password: 'a long password' })
  return { apiKey: json.api_key as string, account: json.access_token as string }
}

const issue = async (replica: number, apiKey: string) =>
  (await call(replica, '/issue', apiKey, { subject: 'user-1', refresh: true })).json

/** On every replica at the same time. */
const verified = (token: string) =>
  Promise.all(REPLICAS.map(async replica => (await call(replica, '/verify', token)).status))

const databaseTime = async () => (await ask<{ at: Date }>(stage, 'select assay.now() as at'))[0]!.at.getTime()

test('once the emergency rotation is answered, no replica accepts an old token, and all accept a new one', async () => {
  for (let trial = 0; trial < 12; trial++) {
    const use = trial % 2 === 0 ? 'access' : 'both'
    const { apiKey, account } = await signUp(trial % 3)
    const old = await issue(0, apiKey)
    expect(await verified(old.access_token)).toEqual([200, 200, 200])
    const rotated = await call(trial % 3, '/api/secrets/rotate', account, { use, now: true })
    expect(await verified(old.access_token)).toEqual([401, 401, 401])
    expect(rotated.status).toBe(200)
    expect(await verified((await issue(1, apiKey)).access_token)).toEqual([200, 200, 200])
    const refreshed = await call(2, '/refresh', undefined, { refresh_token: old.refresh_token })
    expect(refreshed.status).toBe(use === 'access' ? 200 : 400)
  }
})

test('a replica that is cut off may delay the answer by the bound, and accepts no old token after it', async () => {
  const { apiKey, account } = await signUp(0)
  const { access_token: token } = await issue(0, apiKey)
  expect(await verified(token)).toEqual([200, 200, 200])
  const { link } = stage.replicas[CUT_OFF]!
  const seen: { sentAt: number; status: number }[] = []
  let watching = true
  async function watch() {
    while (watching) {
      const sentAt = performance.now()
      seen.push({ sentAt, status: (await call(CUT_OFF, '/verify', token)).status })
    }
  }
  link.set({ swallow: true })
  const watcher = watch()
  const [before, asked] = [await databaseTime(), performance.now()]
  const { status, json } = await call(0, '/api/secrets/rotate', account, { use: 'access', now: true })
  const answered = performance.now()
  expect(status).toBe(200)
  const late = () => seen.filter(({ sentAt }) => sentAt > answered)
  await until('it is asked after the answer', () => late().length > 20)
  watching = false
  await watcher
  link.fair()

  expect(late().map(({ status }) => status)).not.toContain(200)
  // The replica was cut off: before the answer it used the state it had, and afterwards the state is unknown.
  expect(seen.filter(({ sentAt }) => sentAt < answered).map(({ status }) => status)).toContain(200)
  expect(late().map(({ status }) => status)).toContain(503)
  const effectiveAt = Date.parse(json.effective_at)
  expect(effectiveAt).toBeGreaterThan(before)
  expect(effectiveAt).toBeLessThanOrEqual(await databaseTime())
  // The bound, and the time that a busy machine takes for the rest.
  expect(answered - asked).toBeLessThan(N + 2_000)
  await until('it refuses by what it knows again', async () => (await verified(token)).every(s => s === 401))
})
