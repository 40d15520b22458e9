import { generateKeyPairSync, sign } from 'node:crypto'
import { once } from 'node:events'
import { type AddressInfo, createServer } from 'node:net'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { casings, degenerates, encode } from '../crypto/mutate.ts'
import { ask } from '../support/ask.ts'
import { type Forger, forger, notRefused, signSegments, TYPE, verdicts } from '../support/forge.ts'
import { type Customer, makeWorld, type Replica, type World } from '../support/world.ts'

/** Tokens with a wrong header or signature, some of them signed with the customer's real secret. */

let world: World
let assay: Replica
let customer: Customer

beforeAll(async () => {
  world = await makeWorld()
  assay = await world.replica()
  customer = await assay.signUp()
})
afterAll(() => world.stop())

async function expectAllRefused(tokens: string[], atLeast = tokens.length) {
  const { asked, wrong } = await notRefused(assay, tokens, customer.apiKey)
  expect(wrong).toEqual([])
  expect(asked).toBeGreaterThanOrEqual(atLeast)
}

const JWA = [
  ...['HS', 'RS', 'ES', 'PS'].flatMap(family => [256, 384, 512].map(size => family + size)),
  ...'none RSA1_5 RSA-OAEP RSA-OAEP-256 A128KW A192KW A256KW dir'.split(' '),
  ...'ECDH-ES ECDH-ES+A128KW ECDH-ES+A192KW ECDH-ES+A256KW A128GCMKW A192GCMKW A256GCMKW'.split(' '),
  ...'PBES2-HS256+A128KW PBES2-HS384+A192KW PBES2-HS512+A256KW'.split(' '),
]

describe.each(['access', 'refresh'] as const)('with the real %s key', use => {
  let real: Forger

  beforeAll(async () => {
    real = await forger(assay, customer, use)
  })

  test('tokens that the server would write itself are accepted, so that the others are refused for their own fault', async () => {
    const token = real.texts(real.headerText, JSON.stringify({ ...real.claims, sub: 'someone' }))
    const [verified, toServer, toOwner, refreshed] = await verdicts(assay, token, customer.apiKey)
    expect(toOwner).toContain('{"active":true')
    expect(toOwner).toContain('"sub":"someone"')
    if (use === 'access') expect([verified, toServer]).toEqual(['verify 200', toOwner])
    else expect(refreshed).toBe('refresh 200 undefined')
    real = await forger(assay, customer, use)
  })

  test('H01 alg none in any casing is refused: unsigned, with junk, with a valid HMAC (CVE-2022-23540)', async () => {
    const tokens = casings('none').flatMap(none =>
      ['alg', 'Alg', 'aLG', 'ALG'].flatMap(name => {
        const header = encode(`{"${name}":"${none}","typ":"${TYPE[use]}","kid":"${real.header.kid}"}`)
        return [
          `${header}.${real.claimsSegment}.`,
          `${header}.${real.claimsSegment}.${real.signature}`,
          real.segments(header, real.claimsSegment),
        ]
      }),
    )
    await expectAllRefused(tokens, 64 * 3)
  })

  test('H02 no other algorithm of JWA is accepted, whatever is signed (CVE-2026-22817, CVE-2026-11800)', async () => {
    expect(new Set(JWA).size).toBe(30)
    const others = JWA.filter(alg => alg !== real.header.alg).map(alg => real.withHeader({ alg }))
    await expectAllRefused(others, 29)
  })

  test('H02 the right secret with another HS algorithm is refused (CVE-2023-48238)', async () => {
    const tokens = (['HS256', 'HS384'] as const).flatMap(alg => {
      const other = encode(JSON.stringify({ ...real.header, alg }))
      return [
        signSegments(other, real.claimsSegment, real.secret, alg),
        signSegments(real.headerSegment, real.claimsSegment, real.secret, alg),
      ]
    })
    await expectAllRefused(tokens)
  })

  test("H02 a public key's signature under a valid kid is refused (CVE-2026-11800)", async () => {
    const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 })
    const pem = rsa.publicKey.export({ type: 'spki', format: 'pem' })
    const header = encode(JSON.stringify({ ...real.header, alg: 'RS256' }))
    const input = `${header}.${real.claimsSegment}`
    const signature = sign('sha256', Buffer.from(input), rsa.privateKey).toString('base64url')
    const byPem = signSegments(real.headerSegment, real.claimsSegment, Buffer.from(pem), 'HS512')
    await expectAllRefused([`${input}.${signature}`, byPem])
  })

  test('H03 a JSON serialization is refused, with or without an unprotected header', async () => {
    const { headerSegment, claimsSegment: payload, signature } = real
    const part = { protected: headerSegment, signature }
    const forms = [
      { payload, ...part },
      { payload, ...part, header: { alg: real.header.alg } },
      { payload, signature, header: real.header },
      { payload, signatures: [part] },
      { payload, signatures: [{ ...part, header: { kid: real.header.kid } }] },
    ]
    await expectAllRefused(forms.flatMap(form => [JSON.stringify(form), encode(JSON.stringify(form))]))
  })

  test('H06 a key in the header is ignored, and a URL in the header is not fetched (CVE-2018-0114)', async () => {
    const calls: unknown[] = []
    const server = createServer(socket => {
      calls.push(socket.remoteAddress)
      socket.destroy()
    }).listen(0, '127.0.0.1')
    await once(server, 'listening')
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/keys`
    const own = Buffer.alloc(64, 'k')
    const jwk = { kty: 'oct', k: own.toString('base64url'), alg: 'HS512', kid: real.header.kid }
    const members = {
      jwk,
      jku: url,
      x5u: url,
      x5c: [own.toString('base64')],
      x5t: 'AAAA',
      'x5t#S256': 'AAAA',
    }
    const tokens = Object.entries(members).flatMap(([name, value]) => {
      const header = encode(JSON.stringify({ ...real.header, [name]: value }))
      const byOwn = signSegments(header, real.claimsSegment, own, 'HS512')
      return [real.segments(header, real.claimsSegment), byOwn]
    })
    await expectAllRefused(tokens)
    // Shows that a request would have been counted.
    await fetch(url).catch(() => {})
    expect(calls).toHaveLength(1)
    server.close()
  })

  const CRITICAL: object[] = [
    { crit: ['b64'], b64: false },
    { crit: ['b64'], b64: true },
    { b64: false },
    { b64: true },
    { crit: [] },
    { crit: ['exp'], exp: 1 },
    { crit: ['alg'] },
    { crit: ['kid', 'typ'] },
    { crit: 'b64' },
    { crit: null },
    { crit: ['http://example.com/unknown'], 'http://example.com/unknown': true },
    { zip: 'DEF' },
    { enc: 'A256GCM' },
    { cty: 'JWT' },
    { p2c: 1 },
    { apu: 'AAAA' },
    { nonce: '1' },
    { url: 'https://example.com' },
    { ppt: 'shaken' },
    { extra: 1 },
  ]

  test('H07 crit, b64 and other critical members are refused (CVE-2025-59420, CVE-2026-32597)', async () => {
    expect(CRITICAL).toHaveLength(20)
    await expectAllRefused(CRITICAL.map(more => real.withHeader(more)))
    const { kid, ...rest } = real.header
    const reordered = { kid, ...rest }
    await expectAllRefused([real.texts(JSON.stringify(reordered), real.claimsText)])
  })

  test('H07 an unencoded payload, signed as such, is refused', async () => {
    const header = encode(JSON.stringify({ ...real.header, b64: false, crit: ['b64'] }))
    const signature = real.signer(`${header}.${real.claimsText}`)
    await expectAllRefused([`${header}.${real.claimsText}.${signature}`, `${header}..${signature}`])
  })

  test('H08 a degenerate signature is refused (CVE-2022-21449)', async () => {
    const input = `${real.headerSegment}.${real.claimsSegment}`
    const truncated = [1, 2, 4, 11, 43, 64, 85].map(length => real.signature.slice(0, length))
    const signatures = [...degenerates(real.signature), ...truncated, `${real.signature}A`, '']
    await expectAllRefused(signatures.map(signature => `${input}.${signature}`))
    await expectAllRefused([input])
  })

  test.each([
    'JWT',
    'AT+JWT',
    'application/at+jwt',
    'at+jwt;a=b',
    '',
    null,
    use === 'access' ? 'rt+jwt' : 'at+jwt',
  ])('H16 another type is refused: %j (CVE-2026-41164)', async typ => {
    await expectAllRefused([real.withHeader({ typ })])
  })
})

test('H15 an encrypted token is refused in less than a millisecond, however many rounds it requests (CVE-2024-28176)', async () => {
  const header = encode(
    '{"alg":"PBES2-HS512+A256KW","enc":"A256GCM","p2c":2147483648,"p2s":"AAAAAAAAAAAAAAAA"}',
  )
  const bombs = [`${header}.AAAA.AAAA.AAAA.AAAA`, `${header}.AAAA.AAAA`, `${header}....`]
  await expectAllRefused(bombs)
  const times: number[] = []
  for (let i = 0; i < 99; i++) {
    const began = performance.now()
    const { status } = await ask(assay.app, '/verify', {
      headers: { Authorization: `Bearer ${bombs[i % 3]}` },
    })
    times.push(performance.now() - began)
    expect(status).toBe(401)
  }
  // The median, because the machine may be busy.
  expect(times.toSorted((a, b) => a - b)[49]).toBeLessThan(1)
})
