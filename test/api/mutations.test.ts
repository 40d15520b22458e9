import { createSecretKey } from 'node:crypto'
import { jwtVerify } from 'jose'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { forgeries, mutations } from '../crypto/mutate.ts'
import { ask } from '../support/ask.ts'
import { type Forger, forger, isHeaderValue, TYPE } from '../support/forge.ts'
import { forgetBatches } from '../support/forget-batches.ts'
import { bearer, type Customer, makeWorld, type Replica, type World } from '../support/world.ts'

/**
 * Sends damaged and forged tokens to the server as its users would: all of them in batches, whose JSON can contain any
 * string, and those that fit in a header to /verify. The seed determines the damage, not the token.
 */

const MUTATED = 10_000
const FORGED = 10_000

let world: World
let assay: Replica
let customer: Customer

beforeAll(async () => {
  world = await makeWorld()
  assay = await world.replica()
  customer = await assay.signUp()
})
afterAll(() => world.stop())

const jsonByKey = () => ({ ...bearer(customer.apiKey), 'Content-Type': 'application/json' })

/** Whether each token is active for its own customer. */
async function activities(tokens: string[]): Promise<boolean[]> {
  const active: boolean[] = []
  for (const batch of batches(tokens)) {
    await forgetBatches(assay)
    const init = { method: 'POST', headers: jsonByKey(), body: JSON.stringify({ tokens: batch }) }
    const response = await ask(assay.app, '/introspect/batch', init)
    expect(response.status).toBe(200)
    const json = (await response.json()) as { tokens: { active: boolean }[] }
    active.push(...json.tokens.map(each => each.active))
  }
  expect(active).toHaveLength(tokens.length)
  return active
}

/** At most a hundred tokens and half of the batch limit of 1 MiB: JSON may write one character as six. */
function* batches(tokens: string[]) {
  let batch: string[] = []
  let size = 0
  for (const token of tokens) {
    if (batch.length === 100 || size + token.length > 500_000) {
      yield batch
      batch = []
      size = 0
    }
    batch.push(token)
    size += token.length
  }
  yield batch
}

/** White space around a header's value is not part of it. */
const fitsHeader = (token: string) => isHeaderValue(token) && token.trim() === token

const verified = async (token: string) => (await ask(assay.app, '/verify', { headers: bearer(token) })).status

/** jose's verdict with the same secret, type, algorithm and issuer, at the same time. */
async function joseAccepts(token: string, { secret, use }: Forger): Promise<boolean> {
  const expected = use === 'access' ? { issuer: 'http://assay.test' } : { audience: 'refresh' }
  const options = {
    typ: TYPE[use],
    algorithms: ['HS512'],
    requiredClaims: ['exp', 'sub', 'jti'],
    ...expected,
  }
  return jwtVerify(token, createSecretKey(secret), options).then(
    () => true,
    () => false,
  )
}

describe.each([
  ['access', 11],
  ['refresh', 12],
] as const)('of %s tokens', (use, seed) => {
  const half = MUTATED / 2

  test(`of ${half} tokens mutated without the key, with seed ${seed}, none is accepted`, {
    timeout: 60_000,
  }, async () => {
    const real = await forger(assay, customer, use)
    const tokens = [...mutations(real.token, seed, half)]
    const active = await activities([real.token, ...tokens])
    expect(active[0]).toBe(true)
    const accepted = tokens.flatMap((token, i) => (active[i + 1] ? [describeCase(seed, i, token)] : []))
    expect(accepted).toEqual([])
    let asked = 0
    for (const [i, token] of tokens.entries()) {
      if (!fitsHeader(token)) continue
      asked++
      const status = await verified(token)
      expect(status, describeCase(seed, i, token)).toBe(401)
    }
    expect(asked).toBeGreaterThan(half / 2)
  })

  test(`of ${FORGED / 2} odd tokens with the right key, with seed ${seed}, every accepted one is accepted by jose`, {
    timeout: 60_000,
  }, async () => {
    const real = await forger(assay, customer, use)
    const tokens = [...forgeries(real.token, seed, real.signer, FORGED / 2)]
    const active = await activities(tokens)
    const onlyWe: string[] = []
    let both = 0
    for (const [i, token] of tokens.entries()) {
      if (!active[i]) continue
      if (await joseAccepts(token, real)) both++
      else onlyWe.push(describeCase(seed, i, token))
    }
    expect(onlyWe).toEqual([])
    // Some odd tokens must be accepted, otherwise nothing is compared.
    expect(both).toBeGreaterThan(FORGED / 200)
    for (const [i, token] of tokens.entries()) {
      if (!fitsHeader(token)) continue
      const status = await verified(token)
      // A refresh token is not an access token, whichever key signed it.
      expect(status, describeCase(seed, i, token)).toBe(active[i] && use === 'access' ? 200 : 401)
    }
  })
})

test('jose accepts what the server issues', async () => {
  for (const use of ['access', 'refresh'] as const) {
    const real = await forger(assay, customer, use)
    expect(await joseAccepts(real.token, real)).toBe(true)
    expect(await joseAccepts(`${real.token.slice(0, -4)}AAAA`, real)).toBe(false)
  }
})

/** Identifies the token for a failure message; the token itself must not be printed. */
const describeCase = (seed: number, index: number, token: string) =>
  `seed ${seed}, number ${index}, ${token.length} characters`
