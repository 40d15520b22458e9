import { constants, createHmac, generateKeyPairSync, type KeyObject, sign } from 'node:crypto'
import { once } from 'node:events'
import { type AddressInfo, createServer } from 'node:net'
import { createLocalJWKSet, jwtVerify } from 'jose'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { installationKeyPair } from '../../server/crypto/installation-key-pair.ts'
import { BASE64URL, casings, encode } from '../crypto/mutate.ts'
import { forger, hmacKeysOf, kidOf, notRefused } from '../support/forge.ts'
import { holding, LOADER, POLL, replicaOn } from '../support/holding.ts'
import {
  ALGORITHMS,
  type Alg,
  accepts,
  headerOf,
  jwksOf,
  PUBLISHED_AHEAD_MS,
  rotate,
} from '../support/local.ts'
import { malleated, oddSignatures } from '../support/odd-signatures.ts'
import { halves, keyPairsOf, type PairForger, pairForger, withSignature } from '../support/pair-forge.ts'
import { publicSpellings } from '../support/public-spellings.ts'
import { basic, bearer, claimsOf, makeWorld, type Replica, SERVICE, type World } from '../support/world.ts'

/**
 * Tokens under an asymmetric key that every endpoint refuses, although some are signed with the customer's real private
 * key. No npm or Debian package is known to contain the Wycheproof vectors, so malformed signatures are made here, for
 * our own keys.
 */

let world: World
let here: Replica
let there: Replica

beforeAll(async () => {
  world = await makeWorld()
  here = await world.replica()
  there = await world.replica()
})
afterAll(() => world.stop())

const GATEWAY = basic(SERVICE.id, SERVICE.secret)
const HMACS = { HS256: 'sha256', HS384: 'sha384', HS512: 'sha512' } as const

const verdicts = (token: string) =>
  Promise.all([here, there].map(async assay => (await assay.verify(token)).status))
const reasonOf = async (token: string) =>
  (await here.postForm('/introspect/explain', { token }, { Authorization: GATEWAY })).json.reason
const segment = (value: object) => encode(JSON.stringify(value))

/** The tokens by name, so that a failure shows which one was accepted. */
async function expectRefused({ customer }: PairForger, tokens: Record<string, string>) {
  const names = Object.keys(tokens)
  const { asked, wrong } = await notRefused(here, Object.values(tokens), customer.apiKey)
  expect(wrong.map(each => `${names[Number.parseInt(each, 10)]}: ${each}`)).toEqual([])
  expect(asked).toBe(names.length)
}

/** A kid has only one spelling, so any other last letter makes its MAC wrong. */
const wrongMac = (kid: string) => kid.slice(0, -1) + (kid.endsWith('a') ? 'b' : 'a')

const listed = (tokens: string[]) => Object.fromEntries(tokens.map((token, i) => [`${i}`, token]))

/** An unused key of the right type. */
function foreignPair(alg: Alg) {
  if (alg === 'EdDSA') return generateKeyPairSync('ed25519')
  if (alg === 'ES256') return generateKeyPairSync('ec', { namedCurve: 'P-256' })
  return generateKeyPairSync('rsa', { modulusLength: 2048 })
}

/** Other algorithms with the customer's own key: the name in the header, and a matching signature. */
function otherAlgorithms({ alg, current: { privateKey: key } }: PairForger) {
  const pss = { key, padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: constants.RSA_PSS_SALTLEN_DIGEST }
  const ec = { key, dsaEncoding: 'ieee-p1363' } as const
  const sizes = [256, 384, 512]
  const by = (name: string, hash: string | null, options: Parameters<typeof sign>[2]) =>
    [name, (input: string) => sign(hash, Buffer.from(input), options)] as const
  if (alg === 'EdDSA') return ['Ed25519', 'Ed448', 'EdDSA25519', 'eddsa'].map(name => by(name, null, key))
  if (alg === 'ES256')
    return [...sizes.map(size => by(`ES${size}`, `sha${size}`, ec)), by('ES256K', 'sha256', ec)].slice(1)
  return [
    ...sizes.slice(1).map(size => by(`RS${size}`, `sha${size}`, key)),
    ...sizes.map(size => by(`PS${size}`, `sha${size}`, pss)),
    by('RS1', 'sha1', key),
  ]
}

/** Keys that are not the customer's: of another curve, too short, too long, or simply different. */
function otherKeys(alg: Alg): [string, KeyObject, string | null][] {
  const rsa = (modulusLength: number) => generateKeyPairSync('rsa', { modulusLength }).privateKey
  const ec = (namedCurve: string) => generateKeyPairSync('ec', { namedCurve }).privateKey
  if (alg === 'EdDSA')
    return [
      ['another key', foreignPair(alg).privateKey, null],
      ['Ed448', generateKeyPairSync('ed448').privateKey, null],
    ]
  if (alg === 'ES256')
    return ['P-256', 'P-384', 'P-521', 'secp256k1'].map(curve => [curve, ec(curve), 'sha256'])
  return [1024, 2048, 3072, 4096].map(bits => [`${bits} bits`, rsa(bits), 'sha256'])
}

describe.each(ALGORITHMS)('a customer whose signing_alg is %s', alg => {
  let real: PairForger

  beforeAll(async () => {
    real = await pairForger(world, here, alg)
  })

  test('tokens that the server would sign itself are accepted, so that the others are refused for their own fault', async () => {
    const token = real.withClaims({ sub: 'someone' })
    expect(await verdicts(token)).toEqual([200, 200])
    expect((await here.introspect(token)).json).toMatchObject({ active: true, sub: 'someone' })
    const previous = await hmacOf(real)
    expect(await verdicts(previous.token({ iss: world.config.issuer }))).toEqual([200, 200])
  })

  /** The customer's previous HS512 key, which still verifies. */
  async function hmacOf({ customer, claims }: PairForger) {
    const record = await here.keys.load(customer.id)
    const { secret, kid } = hmacKeysOf(record).find(({ use }) => use === 'access')!
    const header = { alg: 'HS512', typ: 'at+jwt', kid }
    const mac = (input: string) => withSignature(input, createHmac('sha512', secret).update(input).digest())
    const token = (more: object) => mac(`${segment(header)}.${segment({ ...claims, ...more })}`)
    return { header, mac, token }
  }

  test('H02 a MAC with the public key as secret is refused, in each spelling of the key (CVE-2026-22817, CVE-2023-48238)', async () => {
    const spellings = publicSpellings(real.current.publicKey, real.current.kid)
    const previous = await hmacOf(real)
    const claims = segment({ ...real.claims, iss: world.config.issuer })
    const tokens = Object.entries(HMACS).flatMap(([name, hash]) => {
      const inputs = [
        `${segment({ ...real.header, alg: name })}.${real.claimsSegment}`,
        real.input,
        `${segment(previous.header)}.${claims}`,
        `${segment({ ...previous.header, alg: name })}.${claims}`,
      ]
      return inputs.flatMap(input =>
        spellings.map(key => withSignature(input, createHmac(hash, key).update(input).digest())),
      )
    })
    expect(spellings.length).toBeGreaterThanOrEqual(15)
    await expectRefused(real, listed(tokens))
  })

  test('H02 the key pair cannot sign under the kid of an HMAC key, nor that key under the kid of the pair', async () => {
    const previous = await hmacOf(real)
    const { kid } = previous.header
    await expectRefused(real, {
      'the pair, by its kid and HS512': real.withHeader({ alg: 'HS512' }),
      'the pair, by the kid of the HMAC key': real.withHeader({ kid }),
      'the pair, by the header of the HMAC key': real.texts(previous.header, { iss: world.config.issuer }),
      'a MAC, by the header of the pair': previous.mac(real.input),
      'a MAC, by the kid of the pair': previous.mac(
        `${segment({ ...real.header, alg: 'HS512' })}.${real.claimsSegment}`,
      ),
      "a MAC, with the customer's own issuer": previous.token({}),
    })
  })

  test('H01 alg none in any casing is refused: unsigned, and with a valid signature (CVE-2022-23540)', async () => {
    const tokens = casings('none').flatMap(none => {
      const header = segment({ ...real.header, alg: none })
      return [`${header}.${real.claimsSegment}.`, real.segments(header, real.claimsSegment)]
    })
    expect(tokens).toHaveLength(32)
    await expectRefused(real, listed(tokens))
  })

  test('H02 another algorithm with the right key is refused, under its own name and under the right one', async () => {
    const tokens = otherAlgorithms(real).flatMap(([name, signed]) => {
      const input = `${segment({ ...real.header, alg: name })}.${real.claimsSegment}`
      const own = [[`${name} by its name`, withSignature(input, signed(input))]]
      // Under the right name these are valid signatures.
      const isSame = alg === 'EdDSA' || name === 'ES256K'
      return isSame ? own : [...own, [name, withSignature(real.input, signed(real.input))]]
    })
    await expectRefused(real, Object.fromEntries(tokens))
  })

  test('H02 the right signature under the name of another algorithm is refused', async () => {
    const names = [
      'HS256',
      'HS384',
      'HS512',
      'none',
      '',
      'EdDSA',
      'ES256',
      'RS256',
      'RS384',
      'PS256',
      'ES384',
    ]
    const others = names.filter(name => name !== alg)
    await expectRefused(real, Object.fromEntries(others.map(name => [name, real.withHeader({ alg: name })])))
  })

  test('H02 a signature by another key is refused: a different one, a shorter or longer one, one of another curve', async () => {
    const tokens = otherKeys(alg).flatMap(([name, key, hash]) => {
      const made = sign(hash, Buffer.from(real.input), { key, dsaEncoding: 'ieee-p1363' })
      const length = real.signature.length
      const filled = Buffer.concat([Buffer.alloc(Math.max(0, length - made.length)), made])
      return [
        [name, withSignature(real.input, made)],
        [`${name}, filled or cut`, withSignature(real.input, filled.subarray(-length))],
      ]
    })
    await expectRefused(real, Object.fromEntries(tokens))
  })

  test('H08 degenerate and malformed signatures are refused (CVE-2022-21449)', async () => {
    const { input, signature, current } = real
    const odd = oddSignatures(alg, { ...current, input, signature })
    const lengths = [0, 1, 32, 63, signature.length - 1].map(length => signature.subarray(0, length))
    const longer = [1, 2, 3, 64].map(more => Buffer.concat([signature, Buffer.alloc(more)]))
    const filled = [0, 0xff].map(byte => Buffer.alloc(signature.length, byte))
    await expectRefused(
      real,
      Object.fromEntries(Object.entries(odd).map(([name, bytes]) => [name, withSignature(input, bytes)])),
    )
    await expectRefused(
      real,
      listed([...lengths, ...longer, ...filled].map(bytes => withSignature(input, bytes))),
    )
  })

  test('H08 flipping any bit of a signature makes it invalid', async () => {
    const { input, signature } = real
    const step = signature.length === 64 ? 1 : 5
    for (let bit = 0; bit < signature.length * 8; bit += step) {
      const flipped = Buffer.from(signature)
      flipped[bit >> 3]! ^= 1 << (bit & 7)
      expect((await here.verify(withSignature(input, flipped))).status, `bit ${bit}`).toBe(401)
    }
  })

  test('H09 only one spelling of a signature is accepted', async () => {
    const last = [...BASE64URL].map(letter => real.token.slice(0, -1) + letter)
    const padded = ['=', '==', 'A', 'AA'].map(more => real.token + more)
    const encoded = real.signature.toString('base64')
    const others = [encoded, encoded.replaceAll('=', ''), `${encoded.slice(0, 10)} ${encoded.slice(10)}`]
    const spelled = [...last, ...padded, ...others.map(text => `${real.input}.${text}`)]
    const different = [...new Set(spelled)].filter(token => token !== real.token)
    await expectRefused(real, listed(different))
    expect(await verdicts(real.token)).toEqual([200, 200])
  })

  test('H09 a header or claims in another spelling are refused, even if that spelling was signed', async () => {
    const header = JSON.stringify(real.header)
    const claims = JSON.stringify(real.claims)
    const { kid, ...rest } = real.header
    const respelled: [string, string][] = [
      [encode(` ${header}`), real.claimsSegment],
      [segment({ kid, ...rest }), real.claimsSegment],
      [encode(header.replace('{', `{"alg":"${alg}",`)), real.claimsSegment],
      [encode(header.replace('at+jwt', 'at\\u002bjwt')), real.claimsSegment],
      [`${real.headerSegment}=`, real.claimsSegment],
      [real.headerSegment, encode(`${claims} `)],
      [real.headerSegment, encode(claims.replace('{', '{"sub":"root",'))],
      [real.headerSegment, encode(claims.replace('{', '{"__proto__":{},'))],
      [real.headerSegment, `${real.claimsSegment}=`],
    ]
    await expectRefused(real, listed(respelled.map(([one, two]) => real.segments(one, two))))
  })

  test('H06 a key in the header is ignored, and a URL in the header is not fetched (CVE-2018-0114)', async () => {
    const calls: unknown[] = []
    const server = createServer(socket => {
      calls.push(socket.remoteAddress)
      socket.destroy()
    }).listen(0, '127.0.0.1')
    await once(server, 'listening')
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/keys`
    await expectRefused(real, withKeyMembers(url))
    // Shows that a request would have been counted.
    await fetch(url).catch(() => {})
    expect(calls).toHaveLength(1)
    server.close()
  })

  /** Tokens signed with the key that they contain, and with the real one. */
  function withKeyMembers(url: string): Record<string, string> {
    const own = foreignPair(alg)
    const jwk = { ...own.publicKey.export({ format: 'jwk' }), alg, use: 'sig', kid: real.header.kid }
    const chain = [own.publicKey.export({ type: 'spki', format: 'der' }).toString('base64')]
    const members = { jwk, jku: url, x5u: url, x5c: chain, x5t: 'AAAA', 'x5t#S256': 'AAAA' }
    const tokens = Object.entries(members).flatMap(([name, value]) => [
      [`${name}, its own key`, real.withHeader({ [name]: value }, own.privateKey)],
      [`${name}, its own key and no kid`, real.withHeader({ [name]: value, kid: undefined }, own.privateKey)],
      [`${name}, the real key`, real.withHeader({ [name]: value })],
    ])
    return Object.fromEntries(tokens)
  }

  test('H07 crit, b64 and other members are refused, even if the real key signed them (CVE-2025-59420)', async () => {
    const members: object[] = [
      { crit: ['b64'], b64: true },
      { crit: ['b64'], b64: false },
      { b64: true },
      { b64: false },
      { crit: [] },
      { crit: ['exp'], exp: 1 },
      { crit: ['alg', 'kid'] },
      { crit: 'b64' },
      { crit: null },
      { zip: 'DEF' },
      { cty: 'JWT' },
      { nonce: '1' },
    ]
    const unencoded = segment({ ...real.header, b64: false, crit: ['b64'] })
    const detached = real.segments(unencoded, JSON.stringify(real.claims))
    const tokens = [...members.map(more => real.withHeader(more)), detached]
    await expectRefused(real, listed(tokens))
  })

  test('H16 a token of another type is refused', async () => {
    const types = [
      'JWT',
      'AT+JWT',
      'application/at+jwt',
      'rt+jwt',
      'token-introspection+jwt',
      '',
      null,
      undefined,
    ]
    await expectRefused(real, listed(types.map(typ => real.withHeader({ typ }))))
  })

  test('H17 a token with another kid is refused', async () => {
    const other = await pairForger(world, here, alg)
    const { id } = real.customer
    const refresh = kidOf(world, id, 'refresh')
    await expectRefused(real, {
      "another customer's kid": real.withHeader({ kid: other.header.kid }),
      "another customer's kid and claims": real.texts({ kid: other.header.kid }, other.claims),
      "another customer's claims": real.withClaims(other.claims),
      'signed by another customer': real.withHeader({}, other.current.privateKey),
      'signed by another customer, with its claims': real.withClaims(other.claims, other.current.privateKey),
      'the refresh key': real.withHeader({ kid: refresh }),
      'the refresh key as a refresh token': real.withHeader({ kid: refresh, typ: 'rt+jwt' }),
      'the pair as a refresh token': real.withHeader({ typ: 'rt+jwt' }),
      'a version that there never was': real.withHeader({ kid: kidOf(world, id, 'access', 99) }),
      'a customer that there never was': real.withHeader({ kid: kidOf(world, 'aaaaaaaaaaaaaaaa') }),
      'a wrong MAC': real.withHeader({ kid: wrongMac(real.header.kid) }),
      'no kid': real.withHeader({ kid: undefined }),
      'a list of kids': real.withHeader({ kid: [real.header.kid] }),
    })
  })

  test('H17 a token with another issuer or customer is refused (CVE-2026-23552)', async () => {
    const other = await pairForger(world, here, alg)
    const own = String(real.claims.iss)
    const issuers = {
      "the server's": world.config.issuer,
      "another customer's": other.claims.iss,
      none: undefined,
      'with a slash at its end': `${own}/`,
      'in capitals': own.toUpperCase(),
      'without the MAC': own.slice(0, -14),
      'by https': own.replace('http:', 'https:'),
      'in a list': [own],
    }
    const tokens = Object.entries(issuers).map(([name, iss]) => [name, real.withClaims({ iss })])
    await expectRefused(real, {
      ...Object.fromEntries(tokens),
      "another customer's id": real.withClaims({ client_id: other.customer.id }),
      'no id': real.withClaims({ client_id: undefined }),
      "another customer's id and issuer": real.withClaims({
        client_id: other.customer.id,
        iss: other.claims.iss,
      }),
    })
    expect(await reasonOf(real.withClaims({ iss: world.config.issuer }))).toBe('wrong_issuer')
    expect(await reasonOf(real.withClaims({ client_id: other.customer.id }))).toBe('wrong_customer')
  })

  test("jose refuses a customer's token with another customer's JWKS or issuer", async () => {
    const other = await pairForger(world, here, alg)
    const [jwks, otherJwks] = [await jwksOf(here, real.token), await jwksOf(here, other.token)]
    const verified = (token: string, keys: typeof jwks, issuer: unknown) =>
      jwtVerify(token, createLocalJWKSet(keys), { issuer: String(issuer), typ: 'at+jwt' })
    const claimed = other.texts({ kid: real.header.kid }, real.claims)
    await expect(verified(real.token, jwks, real.claims.iss)).resolves.toMatchObject({ payload: real.claims })
    const noKey = { code: 'ERR_JWKS_NO_MATCHING_KEY' }
    await expect(verified(real.token, otherJwks, other.claims.iss)).rejects.toMatchObject(noKey)
    await expect(verified(real.token, otherJwks, real.claims.iss)).rejects.toMatchObject(noKey)
    await expect(verified(real.token, jwks, other.claims.iss)).rejects.toMatchObject({ claim: 'iss' })
    await expect(verified(claimed, jwks, real.claims.iss)).rejects.toMatchObject({
      code: 'ERR_JWS_SIGNATURE_VERIFICATION_FAILED',
    })
    await expect(verified(other.texts({}, real.claims), jwks, real.claims.iss)).rejects.toMatchObject(noKey)
  })

  test('tokens signed by the next key are refused until it becomes current, and accepted from then on', async () => {
    const own = await pairForger(world, here, alg)
    const claims = { exp: Number(own.claims.exp) + 3_600 }
    const token = own.texts({ kid: own.next.kid }, claims, own.next.privateKey)
    await expectRefused(own, { token })
    expect(await verdicts(token)).toEqual([401, 401])
    expect(await reasonOf(token)).toBe('key_not_in_use')
    await world.advance(PUBLISHED_AHEAD_MS)
    expect(await verdicts(token)).toEqual([401, 401])
    expect((await rotate(here, own.customer)).status).toBe(200)
    expect(await verdicts(token)).toEqual([200, 200])
  })

  test('a wrong signature under the kid of the next key costs no query', async () => {
    const own = await pairForger(world, here, alg)
    const database = holding(world.db)
    const replica = await replicaOn(world, database.db)
    const replies = async (token: string) => (await replica.verify(token)).status
    expect(await replies(own.token)).toBe(200)
    const queries = () => database.total() - database.asked(POLL)
    const before = queries()
    for (let made = 0; made < 50; made++)
      expect(await replies(own.withHeader({ kid: own.next.kid }))).toBe(401)
    expect(await replies(own.withHeader({ kid: own.next.kid }, foreignPair(alg).privateKey))).toBe(401)
    expect(queries()).toBe(before)
    // Shows that a query would have been counted: only the key itself can cause one.
    const loads = database.asked(LOADER)
    expect(await replies(own.withHeader({ kid: own.next.kid }, own.next.privateKey))).toBe(401)
    expect(database.asked(LOADER)).toBe(loads + 1)
  })

  test('tokens of a retired key are refused, whether cached or not', async () => {
    const own = await pairForger(world, here, alg)
    const retired = own.withClaims({ sub: 'user-2' })
    expect(await verdicts(retired)).toEqual([200, 200])
    expect((await rotate(here, own.customer, { use: 'access', now: true })).status).toBe(200)
    const fresh = own.withClaims({ sub: 'user-3', exp: Number(own.claims.exp) + 3_600 })
    await expectRefused(own, { cached: retired, new: fresh, first: own.token })
    expect(await verdicts(fresh)).toEqual([401, 401])
    expect(await reasonOf(fresh)).toBe('key_unknown')
    const [kept] = (await keyPairsOf(world, own.customer)).filter(({ state }) => state === 'current')
    expect(kept!.kid).toBe(own.next.kid)
    await expectRefused(own, { renamed: own.withHeader({ kid: own.next.kid }) })
  })

  test('a key replaced by an ordinary rotation has no private half any more, and still verifies', async () => {
    const own = await pairForger(world, here, alg)
    await world.advance(PUBLISHED_AHEAD_MS)
    expect((await rotate(here, own.customer)).status).toBe(200)
    await expect(keyPairsOf(world, own.customer)).rejects.toThrow('only the public half is kept')
    const token = own.withClaims({ exp: Number(own.claims.exp) + 3_600 })
    expect(await verdicts(token)).toEqual([200, 200])
  })
})

test('both ES256 signatures of one token are accepted, and a revocation ends both', async () => {
  const { input, signature, token, customer } = await pairForger(world, here, 'ES256')
  const other = withSignature(input, malleated(signature))
  expect(other === token).toBe(false)
  expect(await verdicts(other)).toEqual([200, 200])
  expect(await accepts(await jwksOf(here, token), other)).toBe(true)
  const revoked = await here.postForm('/revoke?wait=all', { token: other }, bearer(customer.apiKey))
  expect(revoked.status).toBe(200)
  expect([await verdicts(token), await verdicts(other)]).toEqual([
    [401, 401],
    [401, 401],
  ])
})

describe("the installation's key", () => {
  let real: PairForger

  beforeAll(async () => {
    real = await pairForger(world, here, 'EdDSA')
  })

  const signedAnswer = async () =>
    (
      await here.postForm(
        '/introspect',
        { token: real.token },
        { Authorization: GATEWAY, Accept: 'application/token-introspection+jwt' },
      )
    ).text

  test('signs no access token (RFC 9701 8.1)', async () => {
    const answer = await signedAnswer()
    const { kid } = headerOf(answer)
    const { privateKey } = halves(installationKeyPair(world.keyRing.installationKey))
    const told = { ...claimsOf(answer), ...real.claims }
    const server = { iss: world.config.issuer }
    await expectRefused(real, {
      'a signed answer': answer,
      'its kid, for a token': real.withHeader({ kid }, privateKey),
      "its kid and the server's issuer": real.texts({ kid }, server, privateKey),
      'its kid and type': real.texts({ kid, typ: 'token-introspection+jwt' }, {}, privateKey),
      "the customer's kid": real.withHeader({}, privateKey),
      "the customer's kid, the server's issuer": real.texts({}, server, privateKey),
      'both at once': real.texts({}, told, privateKey),
    })
  })

  test('is not a customer key, and a customer key signs no introspection response', async () => {
    const answer = await signedAnswer()
    const { kid, typ } = headerOf(answer)
    const keys = createLocalJWKSet((await here.get('/.well-known/jwks.json')).json)
    const verified = (token: string) =>
      jwtVerify(token, keys, { issuer: world.config.issuer, audience: SERVICE.id, typ })
    await expect(verified(answer)).resolves.toBeDefined()
    const claims = claimsOf(answer)
    for (const forged of [
      real.texts({ typ }, claims),
      real.texts({ typ, kid }, claims),
      real.texts({ kid }, claims),
      real.token,
    ])
      await expect(verified(forged)).rejects.toThrow()
    expect(await accepts(await jwksOf(here, real.token), answer)).toBe(false)
  })
})

test('a customer with HMAC tokens accepts no key pair, even one that signs in its name', async () => {
  const customer = await here.signUp()
  const own = await pairForger(world, here, 'EdDSA')
  const real = await forger(here, customer, 'access')
  const kid = real.header.kid
  await expectRefused(own, {
    'its kid': own.texts({ kid }, real.claims),
    'its kid and HS512': own.texts({ kid, alg: 'HS512' }, real.claims),
    'its next kid': own.texts({ kid: kidOf(world, customer.id, 'access', 2) }, real.claims),
  })
})

test('a made-up issuer name costs no query', async () => {
  const own = await pairForger(world, here, 'EdDSA')
  const database = holding(world.db)
  const replica = await replicaOn(world, database.db)
  const statusOf = async (name: string) => (await replica.request(`/customers/${name}/jwks.json`)).status
  const name = String(own.claims.iss).split('/').at(-1)!
  const [id = '', mac = ''] = name.split('.')
  const queries = () => database.total() - database.asked(POLL)
  const before = queries()
  const macOfKid = own.header.kid.split('.').at(-1)
  const madeUp = [id, `${id}.${macOfKid}`, `${id}.${mac}a`, wrongMac(name), `aaaaaaaaaaaaaaaa.${mac}`]
  for (const one of madeUp) expect(await statusOf(one)).toBe(404)
  expect(queries()).toBe(before)
  // Shows that a query would have been counted.
  expect(await statusOf(name)).toBe(200)
  expect(queries()).toBeGreaterThan(before)
})
