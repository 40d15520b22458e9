import { createSecretKey } from 'node:crypto'
import { compactVerify, decodeJwt, jwtVerify } from 'jose'
import { describe, expect, test } from 'vitest'
import { sign } from '../../server/jwt/jwt.ts'
import { BASE64URL, encode, forgeries, mutations } from './mutate.ts'
import {
  claims,
  claimsText,
  header,
  headerText,
  parts,
  resigned,
  secret,
  signed,
  signer,
  token,
  weAccept,
} from './token.ts'

/**
 * jose is the oracle: it must accept whatever we accept. It gets the same questions as our four functions: is the MAC
 * right, and are the claims an object? The meaning of claims (exp, aud) is tested elsewhere.
 */

const MUTATED = 20_000
const FORGED = 20_000
const key = createSecretKey(secret)

async function joseAccepts(text: string): Promise<boolean> {
  try {
    await compactVerify(text, key, { algorithms: ['HS256', 'HS384', 'HS512'] })
    return decodeJwt(text) !== undefined
  } catch {
    return false
  }
}

/** The classes of tokens that only we refuse, each with its reason. All but the first two can only be made with the key. */
const ONLY_WE_REFUSE: Record<string, { why: string; examples: string[] }> = {
  'another spelling of base64url': {
    why: 'one token would have many strings: unused bits, padding, white space (RFC 4648 3.5)',
    examples: [
      ...[...BASE64URL].map(last => token.slice(0, -1) + last).filter(sameBytes),
      `${token}==`,
      `${token}\n`,
      `${token.slice(0, -9)} \t\r\n${token.slice(-9)}`,
      resigned(`${parts.header} `, parts.claims),
      resigned(parts.header, ` ${parts.claims}`),
      resigned(respelled(encode(JSON.stringify({ ...header, kid: 'k' }))), parts.claims),
      resigned(parts.header, respelled(encode('{"sub":"a"}'))),
    ],
  },
  'longer than 8 KiB': {
    why: 'the cost of a refusal is bounded before anything is read; our own claims are far smaller',
    examples: [
      signed(headerText, JSON.stringify({ claims: 'x'.repeat(6200) })),
      `${token}${' '.repeat(8192)}`,
    ],
  },
  'another header': {
    why: 'we write one header a key; another member could only be an instruction we do not follow',
    examples: [
      signed(JSON.stringify({ ...header, cty: 'JWT' }), claimsText),
      signed(JSON.stringify({ ...header, jwk: { kty: 'oct', k: 'AAAA' } }), claimsText),
      signed(JSON.stringify({ ...header, jku: 'http://127.0.0.1:9/' }), claimsText),
      signed(JSON.stringify({ ...header, crit: ['b64'], b64: true }), claimsText),
      signed(JSON.stringify({ ...header, typ: 'JWT' }), claimsText),
      signed(JSON.stringify({ ...header, kid: 7 }), claimsText),
      signed('{"alg":"HS512"}', claimsText),
      signed(JSON.stringify({ kid: header.kid, typ: header.typ, alg: header.alg }), claimsText),
    ],
  },
  'another spelling of the header': {
    why: 'of a member given twice RFC 7515 4 lets a reader take the last: two readers, two headers',
    examples: [
      signed(` ${headerText}`, claimsText),
      signed(`\ufeff${headerText}`, claimsText),
      signed(headerText.replace('{', '{"alg":"none",'), claimsText),
      signed(headerText.replace('{', '{"\\u0061lg":"none",'), claimsText),
      signed(headerText.replace('at+jwt', 'at\\u002bjwt'), claimsText),
      signed(headerText.replace('}', ',"kid":"other"}'), claimsText),
    ],
  },
  'another spelling of the claims': {
    why: 'the same for the claims, and for numbers that another reader rounds otherwise',
    examples: [
      signed(headerText, `${claimsText} `),
      signed(headerText, `\ufeff${claimsText}`),
      signed(headerText, claimsText.replace('{', '{"sub":"admin",')),
      signed(headerText, claimsText.replace('{', '{"\\u0073ub":"admin",')),
      signed(headerText, claimsText.replaceAll('/', '\\/')),
      signed(headerText, '{"exp":1790000300.0}'),
      signed(headerText, '{"exp":179000030e1}'),
      signed(headerText, '{"exp":1e999}'),
      signed(headerText, '{"iat":-0}'),
      signed(headerText, '{"2":1,"1":1}'),
    ],
  },
  'a member named like what every object inherits': {
    why: 'no merge or look-up further on can then be led to a prototype (H13)',
    examples: ['__proto__', 'constructor', 'prototype'].flatMap(name => [
      signed(headerText, `{"${name}":{"admin":true}}`),
      signed(headerText, `{"claims":{"a":[{"${name}":1}]}}`),
    ]),
  },
}

/** The class of a token, determined without the code under test; undefined if no class is listed. */
function classOf(text: string): string | undefined {
  if (text.length > 8192) return 'longer than 8 KiB'
  const segments = text.split('.')
  if (segments.some(s => encode(Buffer.from(s, 'base64url')) !== s)) return 'another spelling of base64url'
  const [head = '', body = ''] = segments.map(s => Buffer.from(s, 'base64url').toString())
  const members = JSON.parse(head.replace(/^\ufeff/, ''))
  if (JSON.stringify(members) !== head) return 'another spelling of the header'
  if (!/^\{"alg":"HS(256|384|512)","typ":"(at|rt)\+jwt","kid":"(\\.|[^"\\])*"\}$/.test(head))
    return 'another header'
  if (JSON.stringify(JSON.parse(body.replace(/^\ufeff/, ''))) !== body)
    return 'another spelling of the claims'
  if (inherits(JSON.parse(body))) return 'a member named like what every object inherits'
  return undefined
}

function inherits(value: unknown): boolean {
  if (typeof value !== 'object' || value === null) return false
  const names = ['__proto__', 'constructor', 'prototype']
  return names.some(name => Object.hasOwn(value, name)) || Object.values(value).some(inherits)
}

/** Both verdicts for each token, and the classes of those that only we refuse. */
async function compare(tokens: Iterable<string>) {
  const both: string[] = []
  const onlyWe: string[] = []
  const classes = new Set<string | undefined>()
  for (const text of tokens) {
    const [ours, theirs] = [weAccept(text), await joseAccepts(text)]
    if (ours && theirs) both.push(text)
    if (ours && !theirs) onlyWe.push(text)
    if (!ours && theirs) classes.add(classOf(text))
  }
  return { both, onlyWe, classes }
}

test.each(['HS256', 'HS384', 'HS512'] as const)(
  'jose verifies our %s signatures, and reads the same claims',
  async alg => {
    for (const typ of ['at+jwt', 'rt+jwt'] as const) {
      const options = {
        algorithms: [alg],
        typ,
        currentDate: new Date(1790000000_000),
        audience: 'api',
      }
      const read = await jwtVerify(sign({ ...header, alg, typ }, claims, secret), key, options)
      expect(read.payload).toEqual(claims)
      expect(read.protectedHeader).toEqual({ ...header, alg, typ })
    }
  },
)

test(`of ${MUTATED} tokens mutated without the key we accept none`, async () => {
  const { both, onlyWe, classes } = await compare(mutations(token, 1, MUTATED))
  expect(onlyWe).toEqual([])
  // A different string for the same token would be a second identity of it (H09).
  expect(both).toEqual([])
  expect([...classes].sort()).toEqual(['another spelling of base64url', 'longer than 8 KiB'])
})

test(`of ${FORGED} odd tokens signed with the right key we accept none that jose refuses`, {
  timeout: 120_000,
}, async () => {
  const { both, onlyWe, classes } = await compare(forgeries(token, 2, signer, FORGED))
  expect(onlyWe).toEqual([])
  // Some odd tokens must be accepted, otherwise nothing is compared.
  expect(both.length).toBeGreaterThan(FORGED / 20)
  expect([...classes].sort()).toEqual(Object.keys(ONLY_WE_REFUSE).sort())
})

test('the same seed gives the same tokens, none of them the original', () => {
  const made = [...mutations(token, 3, 500)]
  expect([...mutations(token, 3, 500)]).toEqual(made)
  expect([...mutations(token, 4, 500)]).not.toEqual(made)
  expect(made).not.toContain(token)
  expect(new Set(made).size).toBeGreaterThan(350)
})

describe.each(Object.entries(ONLY_WE_REFUSE))('only we refuse: %s', (name, { why, examples }) => {
  test.each(examples.map((example, i) => [i + 1, example] as const))(
    `example %i, because ${why}`,
    async (_, example) => {
      expect(classOf(example)).toBe(name)
      expect(weAccept(example)).toBe(false)
      expect(await joseAccepts(example)).toBe(true)
    },
  )
})

function sameBytes(text: string): boolean {
  return (
    text !== token &&
    Buffer.from(text.split('.')[2]!, 'base64url').equals(Buffer.from(parts.signature, 'base64url'))
  )
}

/** Sets one of the unused bits in a segment's last character. */
function respelled(segment: string): string {
  return segment.slice(0, -1) + BASE64URL[BASE64URL.indexOf(segment.slice(-1)) + 1]
}
