import { afterAll, beforeAll, expect, test } from 'vitest'
import { encode } from '../crypto/mutate.ts'
import { signSegments } from '../support/forge.ts'
import { asymmetric, headerOf, jwksOf, PUBLISHED_AHEAD_MS, rotate } from '../support/local.ts'
import { publishCustomer } from '../support/plant.ts'
import { type Customer, claimsOf, makeWorld, type Replica, type World } from '../support/world.ts'

/** An attacker who can write to the database but has no master key can sign nothing. */

let world: World
let assay: Replica

beforeAll(async () => {
  world = await makeWorld()
  assay = await world.replica()
})
afterAll(() => world.stop())

async function setAlg({ id }: Customer, version: number, alg: string) {
  await world.admin.query(
    `update assay.signing_keys set alg = $3 where customer_id = $1 and use = 'access' and version = $2`,
    [id, version, alg],
  )
  await publishCustomer(world, id, [assay])
}

const isHmacKey = ({ id }: Customer, version: number) =>
  assay.keys.get(id)?.keys.some(key => key.version === version && key.alg === 'HS512')

test('a public key is not taken for a secret, though its row says HS512 (CVE-2016-5431)', async () => {
  const customer = await asymmetric(assay, 'EdDSA')
  const token = (await customer.issue()).json.access_token
  const { kid } = headerOf(token)
  const published = (await jwksOf(assay, token)).keys.find(key => key.kid === kid)!
  await world.advance(PUBLISHED_AHEAD_MS)
  await rotate(assay, customer)
  await setAlg(customer, 2, 'HS512')
  const secret = Buffer.from(JSON.stringify({ crv: published.crv, kty: published.kty, x: published.x }))
  const header = encode(JSON.stringify({ alg: 'HS512', typ: 'at+jwt', kid }))
  const claims = claimsOf(token)
  const forged = encode(JSON.stringify({ ...claims, iss: world.config.issuer, exp: claims.exp + 3_600 }))
  expect((await assay.verify(signSegments(header, forged, secret, 'HS512'))).status).toBe(503)
  expect(isHmacKey(customer, 2)).not.toBe(true)
})

test.each(['EdDSA', 'ES256', 'RS256'] as const)(
  'a secret whose row says %s cannot be decrypted, and no byte of it is logged',
  async alg => {
    const customer = await assay.signUp()
    await customer.issue()
    const { secret } = (await assay.keys.load(customer.id)).keys.find(key => key.use === 'access') as {
      secret: Buffer
    }
    const begin = secret.toString('latin1', 0, 3)
    const beginAsUtf8 = secret.toString('utf8').slice(0, 3)
    const before = assay.lines.length
    await setAlg(customer, 1, alg)
    expect((await assay.verify(customer.accessToken)).status).toBe(503)
    const lines = assay.lines.slice(before)
    expect(lines.join('')).toContain("can't be decrypted")
    expect(lines.some(line => line.includes(begin) || line.includes(beginAsUtf8))).toBe(false)
    expect(lines.some(line => line.includes('"level":60') || line.includes('SyntaxError'))).toBe(false)
  },
)
