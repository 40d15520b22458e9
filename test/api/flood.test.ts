import { randomBytes } from 'node:crypto'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { newApiKeyId, newCredential, randomId } from '../../server/crypto/credentials.ts'
import { formatKid } from '../../server/jwt/kid.ts'
import { ask } from '../support/ask.ts'
import { hmacKeysOf, signSegments } from '../support/forge.ts'
import { holding, LOADER, named, type OwnReplica, POLL, replicaOn } from '../support/holding.ts'
import { heapInUse } from '../support/memory.ts'
import { until } from '../support/process.ts'
import { trials } from '../support/trials.ts'
import { ALICE, bearer, claimsOf, makeWorld, type World } from '../support/world.ts'

/** Well-formed identifiers that were never issued: each may cost a MAC, but no query. */

let world: World

beforeAll(async () => {
  world = await makeWorld()
})
afterAll(() => world.stop())

const MANY = trials(1_000_000)
/** Concurrent requests. */
const BURST = 20
/** Bytes that may stay allocated after any flood. */
const LITTLE = 20e6

async function countedReplica() {
  const database = holding(world.db)
  const replica = await replicaOn(world, database.db)
  const { access_token: token, api_key: key } = await signUp(replica)
  const statusOf = async (path: string, init: RequestInit) => (await ask(replica.app, path, init)).status
  const verify = (bearing: string, path = '/verify') => statusOf(path, { headers: bearer(bearing) })
  const introspect = (apiKey: string) =>
    statusOf('/introspect', { method: 'POST', headers: { ...bearer(apiKey), ...FORM }, body: 'token=x' })
  /** All queries except polls. */
  const queries = () => database.total() - database.asked(POLL)
  return { replica, loads: () => database.asked(LOADER), queries, token, key, verify, introspect }
}

const FORM = { 'Content-Type': 'application/x-www-form-urlencoded' }

async function signUp(replica: OwnReplica) {
  const { json } = await replica.request('/api/auth/signup', {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify({
      email: `${randomBytes(6).toString('hex')}@example.com`,
      password: 'a long password',
    }),
  })
  return json as { access_token: string; refresh_token: string; api_key: string }
}

const base64url = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url')

const tokenUnder = (kid: string) =>
  `${base64url({ alg: 'HS512', typ: 'at+jwt', kid })}.${base64url({ sub: 'x' })}.${randomBytes(64).toString('base64url')}`

/** Makes valid tokens like this one, each with its own id. */
async function signer(replica: OwnReplica, token: string) {
  const claims = claimsOf(token)
  const record = await replica.keys.load(claims.client_id)
  const { header, secret, alg } = hmacKeysOf(record).find(({ use }) => use === 'access')!
  return () => signSegments(header, base64url({ ...claims, jti: randomId(15) }), secret, alg)
}

const wrongKey = () => randomBytes(32)

const kid = (installationKey: Uint8Array) =>
  formatKid(installationKey, { customerId: randomId(10), use: 'access', version: 1 })

const apiKey = (installationKey: Uint8Array) =>
  newCredential('assay_ak', newApiKeyId(installationKey, randomId(10))).text

/** Milliseconds that a known customer waits for its answer among that many concurrent requests. */
async function waitAmong(others: (() => Promise<number>)[], status: number, known: () => Promise<number>) {
  const began = performance.now()
  const crowd = others.map(ask => ask())
  expect(await known()).toBe(200)
  const took = performance.now() - began
  expect(new Set(await Promise.all(crowd))).toEqual(new Set([status]))
  return took
}

/** The highest percentile with 500 samples beyond it: the 99th in the long run. */
function tail(waits: number[]): number {
  const sorted = waits.toSorted((a, b) => a - b)
  return sorted[Math.floor(sorted.length * Math.max(0.5, 1 - 500 / sorted.length))]!
}

/**
 * Alternates bursts of bad requests with bursts of good ones; the bad ones may not cost others more than the good ones
 * do. If there is a token cache, the good tokens, like the bad ones, are not in it.
 */
async function flood(unknown: () => () => Promise<number>, known: () => Promise<number>, good = () => known) {
  const [calm, flooded]: [number[], number[]] = [[], []]
  for (let asked = 0; asked < MANY; asked += BURST) {
    calm.push(await waitAmong(Array.from({ length: BURST }, good), 200, known))
    flooded.push(await waitAmong(Array.from({ length: BURST }, unknown), 401, known))
  }
  return { calm: tail(calm), flooded: tail(flooded) }
}

const told = (what: string, { calm, flooded }: { calm: number; flooded: number }) =>
  process.stdout.write(
    `${MANY} ${what}: a known customer waits ${flooded.toFixed(2)} ms, ${calm.toFixed(2)} among good ones\n`,
  )

test(`H24 ${MANY} well-formed kids that were never issued cost no query, no memory, and no customer's time (gitlab-agent #171)`, async () => {
  const { replica, queries, token, verify } = await countedReplica()
  const known = () => verify(token)
  expect(await known()).toBe(200)
  const anotherToken = await signer(replica, token)
  const [asked, held] = [queries(), heapInUse()]
  const waits = await flood(
    () => {
      const one = tokenUnder(kid(wrongKey()))
      return () => verify(one)
    },
    known,
    () => {
      const one = anotherToken()
      return () => verify(one)
    },
  )
  expect(queries()).toBe(asked)
  expect(replica.keys.size).toBe(1)
  expect(heapInUse() - held).toBeLessThan(LITTLE)
  told('unknown kids', waits)
  expect(waits.flooded).toBeLessThan(2 * waits.calm)
})

test(`H24 ${MANY} well-formed API keys that were never issued cost no query, no memory, and no customer's time (gitlab-agent #171)`, async () => {
  const { replica, loads, queries, key, introspect } = await countedReplica()
  const known = () => introspect(key)
  expect(await known()).toBe(200)
  const [loaded, asked, held, began] = [loads(), queries(), heapInUse(), performance.now()]
  const waits = await flood(() => {
    const one = apiKey(wrongKey())
    return () => introspect(one)
  }, known)
  expect(loads()).toBe(loaded)
  // The last use of the good key is written once a minute.
  expect(queries() - asked).toBeLessThanOrEqual(1 + (performance.now() - began) / 60_000)
  expect(replica.keys.size).toBe(1)
  expect(heapInUse() - held).toBeLessThan(LITTLE)
  told('unknown API keys', waits)
  expect(waits.flooded).toBeLessThan(2 * waits.calm)
})

/** The most customer records that a replica keeps, and a number above it. */
const CAP = 120_000
const MORE = trials(CAP + 1_000)

test(`H25 valid kids of ${MORE} deleted customers cost three queries per hundred, once, and memory up to a limit`, async () => {
  const { replica, loads, token, verify } = await countedReplica()
  const { installationKey } = world.keyRing
  const names = (many: number) => Array.from({ length: many }, () => tokenUnder(kid(installationKey)))
  const askAll = async (tokens: string[]) => {
    for (let first = 0; first < tokens.length; first += 100) {
      const statuses = await Promise.all(tokens.slice(first, first + 100).map(one => verify(one)))
      expect(new Set(statuses)).toEqual(new Set([401]))
      // A customer with constant requests stays cached.
      expect(await verify(token)).toBe(200)
    }
  }
  await verify(token)
  const before = loads()
  await askAll(names(MORE))
  expect(loads() - before).toBeLessThanOrEqual(3 * Math.ceil(MORE / 100))
  expect(replica.keys.size).toBe(Math.min(CAP, MORE + 1))
  const [held, last] = [heapInUse(), names(MORE / 10)]
  await askAll(last)
  const known = loads()
  await askAll(last)
  expect(loads()).toBe(known)
  expect(heapInUse() - held).toBeLessThan(LITTLE)
})

test('H25 the number of cached verify rules is limited, however many different ones are used', async () => {
  const { token, verify } = await countedReplica()
  await verify(token)
  const held = heapInUse()
  for (let asked = 0; asked < trials(200_000); asked++) {
    const rule = `/verify?scope_any=${'x'.repeat(900)}${asked}`
    expect(await verify(token, rule)).toBe(403)
  }
  expect(heapInUse() - held).toBeLessThan(LITTLE)
})

test('a customer that lists its secrets constantly leaves connections and turns to the others', async () => {
  const database = holding(world.db)
  const replica = await replicaOn(world, database.db)
  const [busy, quiet] = [await signUp(replica), await signUp(replica)]
  const list = (customer: { access_token: string }) =>
    replica.request('/api/secrets', { headers: bearer(customer.access_token) })
  const held = database.hold(named('listSecrets'))
  let refused = 0
  const flood = Array.from({ length: 1_100 }, async () => {
    const { status } = await list(busy)
    if (status === 429) refused++
    return status
  })
  await held.has
  await until('a thousand wait', () => refused === 99)
  const issued = await ask(replica.app, '/issue', {
    method: 'POST',
    headers: { ...bearer(quiet.api_key), 'Content-Type': 'application/json' },
    body: '{}',
  })
  const listed = list(quiet)
  await until('one gives its place to the quiet customer', () => refused === 100)
  const asked = database.asked(named('listSecrets'))
  held.release()
  const statuses = await Promise.all(flood)
  expect({ asked, issued: issued.status, listed: (await listed).status }).toEqual({
    asked: 1,
    issued: 200,
    listed: 200,
  })
  expect(statuses.filter(status => status === 200)).toHaveLength(1_000)
  expect(statuses.filter(status => status === 429)).toHaveLength(100)
})

test('a customer that uses up its turns keeps no operator from retiring one of its secrets', async () => {
  const database = holding(world.db)
  const replica = await replicaOn(world, database.db)
  const { access_token, api_key, refresh_token } = await signUp(replica)
  const held = Array.from({ length: world.db.kind === 'embedded' ? 1 : 2 }, () =>
    database.hold(named('findRefreshable')),
  )
  let refused = 0
  const flood = Array.from({ length: 1_010 }, async () => {
    const { status } = await replica.request('/introspect', {
      method: 'POST',
      headers: bearer(api_key),
      body: new URLSearchParams({ token: refresh_token }),
    })
    if (status === 429) refused++
  })
  await Promise.all(held.map(({ has }) => has))
  await until('a thousand wait', () => refused === 10 - held.length)
  const path = `/admin/customers/${claimsOf(access_token).client_id}/secrets/retire`
  const retired = ask(replica.app, path, {
    method: 'POST',
    headers: { ...bearer(ALICE), 'Content-Type': 'application/json' },
    body: JSON.stringify({ use: 'access', version: 9 }),
  })
  await until('one gives its place to the operator', () => refused === 11 - held.length)
  for (const { release } of held) release()
  expect((await retired).status).toBe(404)
  await Promise.all(flood)
})

test('a thousand refreshes of one token do not take the turns of other customers', async () => {
  const replica = await world.replica()
  const [one, other] = [await replica.signUp(), await replica.signUp()]
  const { refresh_token } = await one.session()
  const { access_token } = await other.session()
  const flood = Array.from({ length: 1_000 }, () => replica.refresh(refresh_token))
  let pending = true
  const statuses = Promise.all(flood).then(answers => {
    pending = false
    return answers.map(({ status }) => status)
  })
  await new Promise(setImmediate)
  const meanwhile = [(await replica.verify(access_token)).status, (await other.issue()).status, pending]
  expect(meanwhile).toEqual([200, 200, true])
  expect(new Set(await statuses)).toEqual(new Set([200]))
})
