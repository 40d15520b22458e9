import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { BASE64URL, encode } from '../crypto/mutate.ts'
import { ask } from '../support/ask.ts'
import { type Forger, forger, isHeaderValue, notRefused } from '../support/forge.ts'
import { heapInUse } from '../support/memory.ts'
import { bearer, type Customer, claimsOf, makeWorld, type Replica, type World } from '../support/world.ts'

/** Tokens with wrong spelling or claims that are signed with the customer's real secret. */

let world: World
let assay: Replica
let customer: Customer

beforeAll(async () => {
  world = await makeWorld()
  assay = await world.replica()
  customer = await assay.signUp()
})
afterAll(() => world.stop())

async function expectAllRefused(tokens: string[]) {
  expect(tokens.length).toBeGreaterThan(0)
  expect((await notRefused(assay, tokens, customer.apiKey)).wrong).toEqual([])
}

/** All spellings of one token that a lenient parser accepts. */
function spellings({ token }: Forger): string[] {
  const segments = token.split('.')
  const inEach = (change: (segment: string) => string[]) =>
    segments.flatMap((segment, i) => change(segment).map(other => segments.with(i, other).join('.')))
  const odd = ['=', '==', ' ', '\t', '%', ',', '\u00a0']
  const all = [
    ...inEach(segment => [...BASE64URL].map(last => segment.slice(0, -1) + last)),
    ...inEach(segment =>
      odd.flatMap(o => [segment + o, o + segment, segment.slice(0, 5) + o + segment.slice(5)]),
    ),
    ...inEach(segment => [segment.replaceAll('-', '+').replaceAll('_', '/')]),
    `${token}.`,
    `.${token}`,
    `${token},${token}`,
  ]
  // White space around a header's value belongs to the header, not to the token.
  return all.filter(other => other.trim() !== token)
}

/** How many of the strings are accepted at /verify, or when introspected by their owner. Uses none of them up. */
async function accepted(tokens: string[]) {
  let count = 0
  for (const token of tokens) {
    const { json } = await assay.introspect(token, `Bearer ${customer.apiKey}`)
    if (json.active || (await isVerified(token))) count++
  }
  return count
}

const isVerified = async (token: string) => isHeaderValue(token) && (await assay.verify(token)).status === 200

describe.each(['access', 'refresh'] as const)('with the real %s key', use => {
  let real: Forger

  beforeAll(async () => {
    real = await forger(assay, customer, use)
  })

  test('H09 a token has one spelling: no other of the 64 last characters, paddings and spaces is accepted', async () => {
    await expectAllRefused(spellings(real))
    const anew = [0, 1].flatMap(i => {
      const segments = [real.headerSegment, real.claimsSegment]
      return [...BASE64URL]
        .map(last => segments.with(i, segments[i]!.slice(0, -1) + last))
        .filter(([h, c]) => `${h}.${c}` !== segments.join('.'))
        .map(([h = '', c = '']) => real.segments(h, c))
    })
    expect(anew).toHaveLength(126)
    await expectAllRefused(anew)
    expect(await accepted([real.token])).toBe(1)
  })

  test('H09 once a token is revoked, no spelling of it is accepted', async () => {
    const own = await forger(assay, customer, use)
    await assay.postForm('/revoke', { token: own.token }, bearer(customer.apiKey))
    await expectAllRefused([own.token])
    expect(await accepted(spellings(own))).toBe(0)
  })

  test('H10 claims that are not an object are refused (CVE-2026-107723)', async () => {
    const texts = ['[]', '[{}]', 'null', '"x"', '1', 'true', '{}', '', ' ', '{', `[${real.claimsText}]`]
    const tokens = texts.map(text => real.texts(real.headerText, text))
    await expectAllRefused([
      ...tokens,
      real.texts('[]', real.claimsText),
      real.texts('null', real.claimsText),
    ])
  })

  test('H11 odd and missing times are refused (CVE-2026-107719)', async () => {
    const odd = ['"1"', '-1', '0', '1e308', '1e999', '1.5', 'null', 'true', '[]', '{}', '""', '-0']
    const texts = ['exp', 'iat'].flatMap(name => [
      ...odd.map(value => real.claimsText.replace(new RegExp(`"${name}":\\d+`), `"${name}":${value}`)),
      JSON.stringify({ ...real.claims, [name]: undefined }),
      real.claimsText.replace(new RegExp(`"${name}":(\\d+)`), `"${name}":$1.0`),
      real.claimsText.replace(new RegExp(`"${name}":(\\d+)`), `"${name}":"$1"`),
      real.claimsText.replace(new RegExp(`"${name}":(\\d+)`), `"${name}":$1000`),
    ])
    // The row of a session decides how long it lives, not its token: a later exp has no effect.
    if (use === 'refresh')
      texts.splice(texts.indexOf(real.claimsText.replace(/"exp":(\d+)/, '"exp":$1000')), 1)
    await expectAllRefused(texts.map(text => real.texts(real.headerText, text)))
  })

  test('H11 a token that is from the future, expired before its iat, or alive for too long is refused', async () => {
    const iat = real.claims.iat as number
    const wrong = [
      { iat: iat + 120, exp: iat + 300 },
      { iat: iat - 300, exp: iat - 1 },
      { iat: iat - 300, exp: iat - 86_400 },
      { iat: iat + 30, exp: iat + 20 },
    ]
    // A session survives setting the database clock back: its row decides about its refresh token.
    const refused = use === 'access' ? wrong : wrong.slice(1)
    await expectAllRefused(refused.map(times => real.withClaims(times)))
    const longest = real.withClaims({ exp: iat + 86_400 })
    const longer = real.withClaims({ exp: iat + 86_401 })
    expect(await accepted([longest, longer])).toBe(use === 'access' ? 1 : 2)
  })

  test('H12 a duplicate member in header or claims is refused, also escaped', async () => {
    const twice = (text: string, name: string) => {
      const escaped = `\\u00${name.charCodeAt(0).toString(16)}${name.slice(1)}`
      const value = JSON.stringify(JSON.parse(text)[name])
      return [name, escaped].flatMap(again => [
        text.replace('{', `{"${again}":${value},`),
        text.replace(/}$/, `,"${again}":${value}}`),
        text.replace('{', `{"${again}":"other",`),
      ])
    }
    await expectAllRefused([
      ...['alg', 'typ', 'kid'].flatMap(name =>
        twice(real.headerText, name).map(text => real.texts(text, real.claimsText)),
      ),
      ...['sub', 'client_id', 'exp', 'jti', 'aud'].flatMap(name =>
        twice(real.claimsText, name).map(text => real.texts(real.headerText, text)),
      ),
    ])
  })

  test('H13 a claim named like a property that every object inherits is refused at any depth (CVE-2026-56763)', async () => {
    const names = ['__proto__', 'constructor', 'prototype']
    const texts = names.flatMap(name => [
      real.claimsText.replace(/}$/, `,"${name}":{"polluted":true}}`),
      real.claimsText.replace(/}$/, `,"claims":{"a":[{"${name}":{"polluted":true}}]}}`),
    ])
    await expectAllRefused(texts.map(text => real.texts(real.headerText, text)))
    expect(({} as Record<string, unknown>).polluted).toBeUndefined()
  })
})

test("H17 another installation's issuer is refused, even with our secret", async () => {
  const real = await forger(assay, customer, 'access')
  const issuers = ['http://assay.test/', 'http://ASSAY.test', 'https://assay.test', 'http://evil.test', '']
  await expectAllRefused(issuers.map(iss => real.withClaims({ iss })))
})

describe('H14 huge tokens are refused cheaply (CVE-2025-30204, CVE-2025-61920)', () => {
  test('8 KiB are read, and one character more is not', async () => {
    const real = await forger(assay, customer, 'access')
    const claimsFor = (pad: string) => real.withClaims({ claims: { pad } })
    const fits = 'x'.repeat(Math.floor(((8192 - claimsFor('').length) / 4) * 3))
    const [most, more] = [claimsFor(fits.slice(0, -3)), claimsFor(`${fits}xxxxxx`)]
    expect(most.length).toBeLessThanOrEqual(8192)
    expect(more.length).toBeGreaterThan(8192)
    expect((await assay.introspect(most)).json.active).toBe(true)
    await expectAllRefused([more])
  })

  test('a million dots and a hundred thousand levels cost little time and memory', async () => {
    const real = await forger(assay, customer, 'access')
    const nested = encode(`{"a":${'['.repeat(100_000)}${']'.repeat(100_000)}}`)
    const deep = `{"claims":${'{"a":'.repeat(1_200)}1${'}'.repeat(1_200)}}`
    const huge = [
      '.'.repeat(1e6),
      `${real.headerSegment}.${nested}.${real.signature}`,
      real.segments(real.headerSegment, nested),
      `${real.token}${'A'.repeat(1e6)}`,
      real.texts(real.headerText, deep),
    ]
    const round = async () => {
      for (const token of huge) {
        const headers = { Authorization: `Bearer ${token}` }
        expect((await ask(assay.app, '/verify', { headers })).status).toBe(401)
      }
    }
    await round()
    const [memory, began] = [heapInUse(), process.cpuUsage()]
    for (let i = 0; i < 100; i++) await round()
    // Only this process's CPU time counts: the machine may be busy.
    const { user, system } = process.cpuUsage(began)
    expect((user + system) / 1_000 / 500).toBeLessThan(10)
    // Nothing is retained of hundreds of MB of headers.
    expect(heapInUse() - memory).toBeLessThan(20e6)
    const form = await assay.postForm('/introspect', { token: huge[0]! })
    expect(form.status).toBe(413)
  })

  test('the claims of a real token are unchanged after all this', async () => {
    const { access_token } = await customer.session()
    expect((await assay.introspect(access_token)).json.jti).toBe(claimsOf(access_token).jti)
  })
})
