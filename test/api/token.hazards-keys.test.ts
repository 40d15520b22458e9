import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { encode } from '../crypto/mutate.ts'
import { type Forger, forger, kidOf, notRefused, REFUSED, signSegments, verdicts } from '../support/forge.ts'
import { type Customer, makeWorld, type Replica, type World } from '../support/world.ts'

/** The key that a token names, and what exists under that name. */

let world: World
let assay: Replica
let customer: Customer

beforeAll(async () => {
  world = await makeWorld()
  assay = await world.replica()
  customer = await assay.signUp()
})
afterAll(() => world.stop())

/** Like an operator's act: writes the change and its number in one statement, then polls with every replica. */
async function change(statement: string, customerId: string) {
  await world.admin.query(
    `with changed as (${statement} returning 1),
      numbered as (update assay.change_feed set seq = seq + 1 where (select count(*) from changed) > 0 returning seq)
    insert into assay.revocations (seq, kind, customer_id, dead_after)
    select seq, 'customer', $1, assay.now() + interval '1 day' from numbered`,
    [customerId],
  )
  await assay.changeFeed.poll()
  await assay.changeFeed.poll()
}

/** Values that failed key lookups are known to have returned as the key. */
const EMPTY_KEYS = ['', '\0', 'undefined', 'null', '[object Object]', '{}', '0', 'secret'].map(text =>
  Buffer.from(text),
)
const WEAK_KEYS = [
  ...EMPTY_KEYS,
  Buffer.alloc(64),
  Buffer.alloc(32),
  Buffer.alloc(128),
  Buffer.alloc(64, ' '),
]

/** Tokens for a kid, signed with every weak key and every HS algorithm. */
const weaklySigned = (kid: string, claims: string, typ: string) =>
  (['HS256', 'HS384', 'HS512'] as const).flatMap(alg =>
    WEAK_KEYS.map(key => signSegments(encode(JSON.stringify({ alg, typ, kid })), claims, key, alg)),
  )

describe.each(['access', 'refresh'] as const)('H04 an empty or short %s key is never used as a key', use => {
  const typ = use === 'access' ? 'at+jwt' : 'rt+jwt'
  const cves = 'CVE-2026-44351, -45363, -49852, -102266, -114616'
  let real: Forger

  beforeAll(async () => {
    real = await forger(assay, await assay.signUp(), use)
  })

  const weak = () => weaklySigned(real.header.kid, real.claimsSegment, typ)

  test(`H04 for a customer that never existed (${cves})`, async () => {
    const id = 'aaaaaaaaaaaaaaaa'
    const claims = encode(JSON.stringify({ ...real.claims, client_id: id }))
    const tokens = weaklySigned(kidOf(world, id, use), claims, typ)
    expect((await notRefused(assay, tokens, customer.apiKey)).wrong).toEqual([])
  })

  test(`H04 for a key version that never existed (${cves})`, async () => {
    const tokens = weaklySigned(kidOf(world, real.customer.id, use, 7), real.claimsSegment, typ)
    expect((await notRefused(assay, tokens, customer.apiKey)).wrong).toEqual([])
  })

  test(`H04 for an ordinary customer (${cves})`, async () => {
    expect((await notRefused(assay, weak(), real.customer.apiKey)).wrong).toEqual([])
  })

  test(`H04 for a disabled customer, whose real tokens are refused too (CVE-2026-1609; ${cves})`, async () => {
    const id = real.customer.id
    await change(`update assay.customers set state = 'disabled' where id = '${id}'`, id)
    expect((await notRefused(assay, weak(), customer.apiKey)).wrong).toEqual([])
    const refreshed = use === 'refresh' ? 'refresh 403 customer_disabled' : 'refresh 400 invalid_grant'
    const ofReal = await verdicts(assay, real.token, customer.apiKey)
    expect(ofReal).toEqual([...REFUSED.slice(0, -1), refreshed])
    await change(`update assay.customers set state = 'active' where id = '${id}'`, id)
    const now = await verdicts(assay, real.token, real.customer.apiKey)
    expect(now[2]).toContain('{"active":true')
  })

  test.each(['sealed_data_key', 'sealed_secret'])(
    `H04 for a customer whose %s cannot be decrypted the state is unknown, never accepted (${cves})`,
    async column => {
      const own = await forger(assay, await assay.signUp(), use)
      const { id } = own.customer
      const spoiled = `set_byte(${column}, length(${column}) - 1, 255 - get_byte(${column}, length(${column}) - 1))`
      await change(
        column === 'sealed_data_key'
          ? `update assay.customers set ${column} = ${spoiled} where id = '${id}'`
          : `update assay.signing_keys set ${column} = ${spoiled} where customer_id = '${id}' and use = '${use}'`,
        id,
      )
      for (const token of [own.token, ...weaklySigned(own.header.kid, own.claimsSegment, typ)])
        for (const said of await verdicts(assay, token, customer.apiKey))
          expect(said).not.toMatch(/^verify 200|^refresh 200|"active":true/)
      // Unknown is not a refusal, and it affects only this customer.
      const unknown = use === 'access' ? await assay.verify(own.token) : await assay.refresh(own.token)
      expect(unknown.status).toBe(503)
      expect(unknown.headers.get('retry-after')).toBe('1')
      expect((await assay.verify(customer.accessToken)).status).toBe(200)
    },
  )

  test(`H04 for an erased customer, whose real tokens are refused too (${cves})`, async () => {
    const { id } = real.customer
    await change(`delete from assay.customers where id = '${id}'`, id)
    expect((await notRefused(assay, [...weak(), real.token], customer.apiKey)).wrong).toEqual([])
  })
})

describe('H05 a kid that was never issued costs no query (CVE-2026-39356)', () => {
  const odd = [
    ...["'", '"', "' or '1'='1", "'; drop table assay.customers; --", '1) or (1=1', '\\', '$1', '%', '_'],
    ...['../../../../etc/passwd', '..\\..\\windows', '/dev/null', 'file:///etc/passwd', 'http://127.0.0.1/k'],
    ...['__proto__', 'constructor', 'prototype', 'toString', 'hasOwnProperty', 'valueOf', '__defineGetter__'],
    ...[
      '\0',
      'a\0b',
      '\r\n',
      '\u2028',
      '名',
      'é',
      '\ud800',
      '\ufeff',
      ' ',
      '',
      '0',
      '-1',
      'null',
      'undefined',
    ],
    ...['a'.repeat(64), 'a'.repeat(1_000), 'a'.repeat(5_000), 'a'.repeat(65_536), '.'.repeat(50), '[]', '{}'],
  ]

  /** Variants of a kid with one letter changed, and other spellings: they look like one of ours, but are not. */
  function lookAlikes(kid: string): string[] {
    const exchanged = [...kid].map((letter, i) => {
      const other = letter === 'a' ? 'b' : letter === '.' ? '_' : letter === '2' ? '3' : 'a'
      return kid.slice(0, i) + other + kid.slice(i + 1)
    })
    const spelled = [
      kid.toUpperCase(),
      ` ${kid}`,
      `${kid} `,
      `${kid}.`,
      `${kid}\0`,
      kid.slice(0, -1),
      `${kid}a`,
    ]
    const versions = ['a0', 'a01', 'a2', 'a+1', 'a1.0', 'r1', 'A1', 'a2147483648', 'a99999999999']
    return [...exchanged, ...spelled, ...versions.map(version => kid.replace('.a1.', `.${version}.`))]
  }

  /** The queries while `run` runs: all of the server's queries except the change feed's polls. */
  async function queriesOf(run: () => Promise<unknown>): Promise<string[]> {
    await Promise.all([assay.clients.flush(), assay.sessions.flush()])
    const { db } = world
    const { query } = db
    const seen: string[] = []
    db.query = (statement, params) => {
      seen.push(statement)
      return query(statement, params)
    }
    try {
      await run()
    } finally {
      Object.assign(db, { query })
    }
    return seen
  }

  test('H05 200 of them: quotes, paths, prototypes, NUL, 64 KiB, look-alikes', async () => {
    const real = await forger(assay, customer, 'access')
    const mine = real.header.kid
    const doubled = [`${mine},${mine}`, `${mine}'--`, `../${mine}`, `${mine}/../x`, `["${mine}"]`]
    const random = Array.from({ length: 120 }, (_, i) => kidOf(world, customer.id).slice(0, 20) + i)
    const kids = [...odd, ...lookAlikes(mine), ...doubled, ...random]
    expect(new Set(kids).size).toBeGreaterThan(200)
    const tokens = kids.map(kid => real.withHeader({ kid }))
    const odder = [7, null, true, [mine], { kid: mine }].map(kid => real.withHeader({ kid }))
    const queries = await queriesOf(async () => {
      for (const token of [...tokens, ...odder]) {
        // Refused for the token alone: with an API key, that key's own record would be loaded.
        expect((await assay.introspect(token)).status).toBe(token.length > 16_000 ? 413 : 200)
        expect((await assay.verify(token)).status).toBe(401)
        if (token.length < 16_000) expect((await assay.refresh(token)).json.error).toBe('invalid_grant')
      }
    })
    expect(queries).toEqual([])
  })

  test('H05 queries are counted: a valid kid of a missing customer costs one query, and then none', async () => {
    const real = await forger(assay, customer, 'access')
    const token = real.withHeader({ kid: kidOf(world, 'bbbbbbbbbbbbbbbb') })
    expect(await queriesOf(() => assay.verify(token))).toHaveLength(1)
    const again = await queriesOf(async () => {
      for (let i = 0; i < 20; i++) expect((await assay.verify(token)).status).toBe(401)
    })
    expect(again).toEqual([])
  })
})
