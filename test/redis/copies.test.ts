import { randomBytes } from 'node:crypto'
import { afterAll, afterEach, beforeAll, expect, inject, test } from 'vitest'
import { type OwnPostgres, startCopy, startPostgres } from '../../faults/postgres.ts'
import { ask, issue, logIn, signUp, verify } from '../support/calls.ts'
import {
  asAdmin,
  type CreatedDatabase,
  changed,
  createDatabase,
  createEmptyDatabase,
} from '../support/database.ts'
import { logLines, type Running, startAssay, stopAll } from '../support/process.ts'
import { ADMIN_TOKEN } from '../support/world.ts'

/** Copies of a database with the original's settings: the same master keys, issuer and Redis. */

let original: OwnPostgres
let production: CreatedDatabase
const copies: OwnPostgres[] = []
const settings = { MASTER_KEYS: `m1:${randomBytes(32).toString('base64')}`, ADMIN_TOKEN }

const start = (url: string) => startAssay({ ...settings, DATABASE_URL: url, REDIS_URL: inject('redisUrl') })

beforeAll(async () => {
  original = await startPostgres()
  production = await createDatabase(original.url)
  // The installation is created before any copy.
  await (await start(production.url)).stop()
})
afterEach(stopAll)
afterAll(async () => {
  for (const server of [original, ...copies]) await server.stop()
})

/** A server with a copy of the original's current files. Returns its database of the same name. */
async function copyFiles() {
  const server = await startCopy(original)
  copies.push(server)
  return changed(production.url, { host: new URL(server.url).host })
}

async function dumpInto(server: OwnPostgres) {
  const { url } = await createEmptyDatabase(server.url)
  await server.ask('drop schema assay', new URL(url).pathname.slice(1))
  await server.dump(asAdmin(production.url), asAdmin(url))
  return url
}

async function dumpIntoOther() {
  const server = await startPostgres()
  copies.push(server)
  return dumpInto(server)
}

/** Any change that advances the counter of the change feed. */
async function publish(at: Running, account: string, times: number) {
  for (let number = 0; number < times; number++) {
    const { status } = await ask(at, '/api/subjects/revoke', {
      json: { subject: `${number}` },
      token: account,
    })
    expect(status).toBe(204)
  }
}

const moves = (at: Running) =>
  logLines(at).filter(({ level, msg }) => level === 40 && /was served from another database/.test(msg)).length

const introspect = async (at: Running, token: string, apiKey: string) =>
  (await ask(at, '/introspect', { form: { token }, token: apiKey })).json

test.each([
  ['of the files of its cluster', copyFiles, 0],
  ['by a dump into another cluster', dumpIntoOther, 1],
  ['by a dump into another database of its server', () => dumpInto(original), 1],
])(
  'credentials that only a copy %s has are refused by the original, which shares its Redis',
  async (_, copy, told) => {
    const first = await start(production.url)
    const { apiKey, account } = await signUp(first)
    const url = await copy()
    const staging = await start(url)
    // The copy's numbers stay below the original's, so that the numbers alone cannot distinguish them.
    await publish(first, (await signUp(first)).account, 5)
    const { status, json: made } = await ask(staging, '/api/keys', {
      json: { name: 'only on the copy' },
      token: account,
    })
    expect(status).toBe(201)
    await ask(staging, '/api/secrets/rotate', { json: {}, token: account })
    const { access_token: token } = await issue(staging, apiKey, 'user-1')
    expect(await introspect(staging, token, made.api_key)).toMatchObject({ active: true })

    // A replica of the original that has cached no customer yet.
    const cold = await start(production.url)
    expect(await introspect(cold, token, apiKey)).toEqual({ active: false })
    expect(await verify(cold, token)).toBe(401)
    expect((await ask(cold, '/introspect', { form: { token }, token: made.api_key })).status).toBe(401)

    // The first start on the copy logs it once, if it can be detected; the original's starts never log it.
    expect([staging, await start(url), first, cold].map(moves)).toEqual([told, 0, 0, 0])
    const { events } = (await ask(staging, '/admin/audit?type=installation.moved', { token: ADMIN_TOKEN }))
      .json
    expect(events).toHaveLength(told)
  },
)

test('failed logins at a copy lock nobody out of the original', async () => {
  const first = await start(production.url)
  const { email } = await signUp(first)
  const staging = await start(await dumpInto(original))
  const guess = async () =>
    (await ask(staging, '/api/auth/login', { json: { email, password: 'a wrong guess' } })).status
  const statuses: number[] = []
  for (let number = 0; number < 11; number++) statuses.push(await guess())
  expect(statuses).toEqual([...Array(10).fill(401), 429])
  expect(await logIn(first, email)).toMatchObject({ access_token: expect.any(String) })
})
