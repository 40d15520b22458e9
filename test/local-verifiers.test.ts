import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { makeDiscoverable } from './support/foreign.ts'
import { ALGORITHMS, type Alg, asymmetric, PUBLISHED_AHEAD_MS, rotate } from './support/local.ts'
import { startVerifiers, VERIFIERS, type Verifier } from './support/local-verifiers.ts'
import { trials } from './support/trials.ts'
import { AUDIENCE, issueOne, type Presented, VerifierLoad } from './support/verifier-load.ts'
import { bearer, type Customer, claimsOf, makeWorld, type Replica, type World } from './support/world.ts'

/** Offline verifiers in their usual configuration, with their default caches, over a real socket. */

/** Defaults of each verifier. */
const VERIFICATIONS = trials(100_000)
/** The longest default JWKS cache: jose and Express keep it for ten minutes, the others for five. */
const LONGEST_CACHE_MS = 600_000
/** By default oauth4webapi accepts a token for 30 s after it expires. */
const MOST_TOLERANCE_MS = 31_000
/** jose waits 30 s between two requests for keys, and oauth4webapi 60 s. PyJWT does not wait. */
const LONGEST_COOLDOWN_MS = 61_000
const UNKNOWN_KEY = /no applicable key|unable to find a signing key/i
const LONG_SECONDS = 4 * 3_600

let world: World
let assay: Replica
let served: Awaited<ReturnType<Replica['serveUntilStopped']>>
let verifiers: Verifier[]
/** Two customers of each algorithm. */
const pairs = new Map<Alg, [Customer, Customer]>()
let aheadMs = 0
/** Requests for keys that reached Assay. */
let fetched = 0

beforeAll(async () => {
  world = await makeWorld()
  ;({ assay } = await makeDiscoverable(world))
  served = await assay.serveUntilStopped()
  served.server.prependListener('request', ({ url }) => {
    if (url?.endsWith('/jwks.json')) fetched++
  })
  verifiers = startVerifiers()
  for (const alg of ALGORITHMS) pairs.set(alg, [await makeCustomer(alg), await makeCustomer(alg)])
})
afterAll(async () => {
  await Promise.all(verifiers.map(({ stop }) => stop()))
  await served.stop()
  await world.stop()
})

/** The verifiers' clocks run ahead, so that none of them sees a token from its future. */
async function advance(milliseconds: number) {
  aheadMs += milliseconds
  await world.advance(milliseconds)
}

/** Its tokens outlive every rotation here. */
const makeCustomer = (alg: Alg) =>
  asymmetric(assay, alg, { access_token_ttl: LONG_SECONDS, max_access_token_ttl: LONG_SECONDS })
const issuerOf = async (customer: Customer): Promise<string> => claimsOf(await issueOne(customer)).iss

const rotateNow = async (customer: Customer): Promise<number> => {
  const { status, json } = await rotate(assay, customer, { use: 'access', now: true })
  expect(status).toBe(200)
  return json.versions[0].version
}

describe.each(VERIFIERS)('%s', name => {
  /** The reason why the token is refused; '' if it is accepted. */
  async function verify(token: string, issuer: string = claimsOf(token).iss, audience = AUDIENCE) {
    const verifier = verifiers.find(each => each.name === name)!
    const [reason] = await verifier.verify({ tokens: [token], issuer, audience, aheadMs })
    return reason
  }

  test.each(ALGORITHMS)('accepts %s tokens, and none that it should refuse', async alg => {
    const [customer, other] = pairs.get(alg)!
    const token = await issueOne(customer)
    const foreign = await issueOne(other)
    const [header, , signature] = foreign.split('.')
    const mixed = [header, token.split('.')[1], signature].join('.')
    const issuer = await issuerOf(customer)
    expect(await verify(token)).toBe('')
    expect(await verify(foreign)).toBe('')
    expect(await verify(token, issuer, 'https://payments.example.com')).toMatch(/aud/i)
    for (const refused of [foreign, mixed, `${token.slice(0, -20)}${'A'.repeat(20)}`])
      expect(await verify(refused, issuer)).not.toBe('')
  })

  test('accepts a revoked token until it expires, unlike Assay', async () => {
    const customer = await makeCustomer('EdDSA')
    const token = await issueOne(customer, { expires_in: 60 })
    expect(await verify(token)).toBe('')
    expect((await assay.postForm('/revoke', { token }, bearer(customer.apiKey))).status).toBe(200)
    expect((await assay.verify(token)).status).toBe(401)
    await advance(50_000)
    expect(await verify(token)).toBe('')
    await advance(10_000 + MOST_TOLERANCE_MS)
    expect(await verify(token)).toMatch(/exp/i)
  })

  test('after an emergency rotation accepts new tokens at once, and old ones until its cache expires', async () => {
    const customer = await makeCustomer('ES256')
    const old = await issueOne(customer)
    expect(await verify(old)).toBe('')
    const before = fetched
    await rotateNow(customer)
    expect(await verify(await issueOne(customer))).toBe('')
    expect(await verify(old)).toBe('')
    expect(fetched).toBe(before)
    expect((await assay.verify(old)).status).toBe(401)
    await advance(LONGEST_CACHE_MS)
    expect(await verify(old)).toMatch(UNKNOWN_KEY)
    expect(await verify(await issueOne(customer))).toBe('')
  })

  test('after an emergency right after another rotation accepts new tokens once it fetches keys again', async () => {
    const customer = await makeCustomer('ES256')
    expect(await verify(await issueOne(customer))).toBe('')
    await rotateNow(customer)
    await rotateNow(customer)
    const token = await issueOne(customer)
    if (name !== 'PyJWT PyJWKClient') expect(await verify(token)).toMatch(UNKNOWN_KEY)
    await advance(LONGEST_COOLDOWN_MS)
    expect(await verify(token)).toBe('')
  })
})

describe('H71: rotations under load', () => {
  let presented: Presented[]
  let load: VerifierLoad

  /** Caches expire after five or ten minutes. */
  async function passUntilRotation() {
    const before = fetched
    for (let passed = 0; passed < PUBLISHED_AHEAD_MS; passed += 300_000) {
      await advance(300_000)
      await world.maintain()
      await load.continue(SHARE)
    }
    expect(fetched).toBeGreaterThan(before)
  }

  async function rotateAll() {
    const before = fetched
    for (const { customer } of presented) expect((await rotate(assay, customer)).status).toBe(200)
    await load.continue(SHARE)
    expect(fetched).toBe(before)
  }

  async function rotateAllNow() {
    const before = fetched
    for (const one of presented) one.oldestVersion = await rotateNow(one.customer)
    await load.continue(SHARE)
    expect(fetched).toBe(before)
  }

  const ROTATIONS = [rotateAll, rotateAll, rotateAllNow, rotateAll]
  /** The verifications in each of three periods before a rotation, and in the one after it. */
  const SHARE = VERIFICATIONS / (ROTATIONS.length * 4)

  async function present(alg: Alg): Promise<Presented> {
    const customer = await makeCustomer(alg)
    return { customer, issuer: await issuerOf(customer), oldestVersion: 0 }
  }

  test('ordinary and emergency rotations fail no verification, and cause no verifier to fetch keys', async () => {
    presented = await Promise.all(ALGORITHMS.map(present))
    load = new VerifierLoad(presented, verifiers, () => aheadMs)
    onTestFinished(() => load.stop())
    for (const rotateEach of ROTATIONS) {
      await passUntilRotation()
      await rotateEach()
    }
    await load.stop()
    const accepted = [...load.accepted]
    const counts = accepted.map(([name, count]) => `${name} ${count}`).join(', ')
    process.stdout.write(`verified across rotations: ${counts}; refused: ${load.failures.length}\n`)
    expect(load.failures).toEqual([])
    for (const [name, count] of accepted) expect(count, name).toBeGreaterThanOrEqual(VERIFICATIONS)
  })
})
