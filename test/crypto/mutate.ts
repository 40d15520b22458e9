/** A seeded source of damaged and forged tokens, so that failures can be repeated, here and over HTTP. */

/** An integer from 0 to `below` - 1. */
export type Random = (below: number) => number

/** The signature segment of a signing input, made with the right key. */
export type Signer = (signingInput: string) => string

/** Takes JSON text and returns text or bytes that resemble it. */
type Edit = (json: string, random: Random) => string | Buffer
type Mutation = (token: string, random: Random) => string

export const BASE64URL = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_'

/** mulberry32. */
export function prng(seed: number): Random {
  let state = seed >>> 0
  return below => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) % below
  }
}

/**
 * `count` strings made from a token without its key by one or two mutations each; never the token itself. Some can't be
 * sent in an HTTP header unchanged (controls, characters beyond Latin-1) and some exceed 8 KiB.
 */
export function* mutations(token: string, seed: number, count = 1000): Generator<string> {
  const random = prng(seed)
  for (let made = 0; made < count; ) {
    const once = pick(MUTATIONS, random)(token, random)
    const mutated = random(4) === 0 ? pick(MUTATIONS, random)(once, random) : once
    if (mutated === token) continue
    made++
    yield mutated
  }
}

/**
 * `count` strings with another header, claims or spelling, signed with the right key: tokens that only a strict parser
 * refuses.
 */
export function* forgeries(token: string, seed: number, signer: Signer, count = 1000): Generator<string> {
  const random = prng(seed)
  const [header = '', claims = ''] = token.split('.')
  for (let made = 0; made < count; ) {
    const edited = [forge(header, HEADER_EDITS, random), forge(claims, CLAIMS_EDITS, random)].join('.')
    const signed = `${edited}.${signer(edited)}`
    const forged = random(8) === 0 ? pick(RESPELLINGS, random)(signed, random) : signed
    if (forged === token) continue
    made++
    yield forged
  }
}

/** Every way to write a word in small and capital letters. */
export function casings(word: string): string[] {
  const tails = word.length > 1 ? casings(word.slice(1)) : ['']
  return [word.charAt(0).toLowerCase(), word.charAt(0).toUpperCase()].flatMap(head =>
    tails.map(tail => head + tail),
  )
}

export function encode(json: string | Buffer): string {
  return Buffer.from(json as string).toString('base64url')
}

export function decode(segment: string): string {
  return Buffer.from(segment, 'base64url').toString()
}

const ALGS = ['HS256', 'HS384', 'HS512', 'hs512', 'HS512 ', 'RS256', 'ES256', 'EdDSA', 'PS512', 'A256KW', '']
const KIDS = ['', '__proto__', 'constructor', '../../etc/passwd', "' or 1=1 --", '\u0000', 'a'.repeat(9000)]
const SPACES = [' ', '\t', '\n', '\r\n', '\u00a0', '\u2028', '\u0000']
const ODD_CHARACTERS = [...'+/=.,:%"\\{}~', ...SPACES, 'é', 'Ł', '名', '\ud800', 'A\u0301']
const ODD_VALUES = [
  'null',
  'true',
  '-1',
  '-0',
  '1.0',
  '1e3',
  '1e308',
  '1e999',
  '"1"',
  '[]',
  '{}',
  '"\\u0061"',
]
const WEIGHTLESS = [
  '__proto__',
  'constructor',
  'prototype',
  'crit',
  'b64',
  'jwk',
  'jku',
  'x5u',
  'zip',
  'extra',
]

/** A member value with the same or nearly the same meaning. */
const TEXT_EDITS: Edit[] = [
  (json, random) => splice(json, jsonGap(json, random), 0, pick(SPACES, random)),
  (json, random) => `${pick(SPACES, random)}${json}`,
  (json, random) => `${json}${pick(SPACES, random)}`,
  json => `\ufeff${json}`,
  (json, random) => withMember(json, pick(memberNames(json), random), pick(ODD_VALUES, random)),
  (json, random) => withMember(json, escaped(pick(memberNames(json), random)), '"x"'),
  (json, random) => withMember(json, pick(WEIGHTLESS, random), pick(ODD_VALUES, random)),
  json => json.replace(/[a-z]/, letter => `\\u00${letter.charCodeAt(0).toString(16)}`),
  json => json.replace('/', '\\/'),
  json => ordered(json, names => names.reverse()),
  (json, random) => ordered(json, names => names.filter(() => random(names.length) > 0)),
  (json, random) => json.replace(/\d+(?=[,}])/, () => pick(ODD_VALUES, random)),
  (json, random) =>
    Buffer.concat([Buffer.from(json.slice(0, -2)), Buffer.of(0x80 + random(128)), Buffer.from('"}')]),
  (json, random) =>
    pick(['[]', 'null', '"x"', '1', '', '{}', '{', `[${json}]`, JSON.stringify(json)], random),
  (_json, random) => '[{"a":'.repeat(1 + random(900)),
  (json, random) => json.slice(0, random(json.length)),
]

const HEADER_EDITS: Edit[] = [
  (json, random) => withValue(json, 'alg', pick([...casings('none'), ...ALGS], random)),
  (json, random) => withValue(json, 'kid', pick(KIDS, random)),
  (json, random) =>
    withValue(json, 'typ', pick(['JWT', 'at+jwt', 'rt+jwt', 'AT+JWT', 'application/at+jwt'], random)),
  ...TEXT_EDITS,
]

const CLAIMS_EDITS: Edit[] = [
  (json, random) =>
    withValue(json, pick(memberNames(json), random), pick(['', 'admin', 0, 2 ** 53, null], random)),
  (json, random) => withValue(json, 'claims', { ['n'.repeat(1 + random(9))]: [random(99), 'ü\ud83d\ude00'] }),
  ...TEXT_EDITS,
]

/** Other spellings of the same bytes that a lenient parser accepts. */
const RESPELLINGS: Mutation[] = [
  (token, random) => inSegment(token, random, s => s.slice(0, -1) + pick([...BASE64URL], random)),
  (token, random) => inSegment(token, random, s => `${s}${'='.repeat(1 + random(3))}`),
  (token, random) => inSegment(token, random, s => splice(s, random(s.length + 1), 0, pick(SPACES, random))),
  (token, random) => inSegment(token, random, s => s.replaceAll('-', '+').replaceAll('_', '/')),
  (token, random) => inSegment(token, random, s => s.padEnd(s.length + random(9000), ' ')),
]

const MUTATIONS: Mutation[] = [
  ...RESPELLINGS,
  (token, random) => inSegment(token, random, s => flipBit(s, random)),
  (token, random) => splice(token, random(token.length), 1, pick([...BASE64URL], random)),
  (token, random) => splice(token, random(token.length), random(2), pick(ODD_CHARACTERS, random)),
  (token, random) => splice(token, random(token.length), 1 + random(8), ''),
  (token, random) => splice(token, random(token.length), 0, token.slice(random(token.length)).slice(0, 40)),
  (token, random) => inSegments(token, parts => parts.toSorted(() => random(3) - 1)),
  (token, random) => inSegments(token, parts => parts.toSpliced(random(3), 1)),
  (token, random) => inSegments(token, parts => parts.toSpliced(random(3), 1, '')),
  (token, random) =>
    inSegments(token, parts => parts.toSpliced(random(4), 0, pick(['', 'e30', ...parts], random))),
  token => inSegments(token, parts => [...parts, ...parts].slice(0, 5)),
  (token, random) => inSegment(token, random, s => (random(2) ? s.toLowerCase() : s.toUpperCase())),
  (token, random) => inPart(token, 0, s => encode(pick(HEADER_EDITS, random)(decode(s), random))),
  (token, random) => inPart(token, 1, s => encode(pick(CLAIMS_EDITS, random)(decode(s), random))),
  (token, random) => inPart(token, 2, s => degenerate(s, random)),
  (token, random) => inSegments(token, parts => [pick(jsonForms(parts), random)]),
  (token, random) =>
    pick([`Bearer ${token}`, `"${token}"`, `${token},${token}`, `${token}.`, `.${token}`], random),
  (token, random) => token + '.A'.repeat(1 + random(5000)),
]

function forge(segment: string, edits: Edit[], random: Random): string {
  if (random(3) === 0) return segment
  const text = encode(pick(edits, random)(decode(segment), random))
  return random(8) === 0 ? text.slice(0, -1) + pick([...BASE64URL], random) : text
}

/** The degenerate signatures of H08, in base64url. */
export function degenerates(signature: string): string[] {
  const bytes = Buffer.from(signature, 'base64url')
  const zeros = Buffer.alloc(bytes.length)
  const longer = Buffer.concat([bytes, Buffer.of(0)])
  const shorter = [0, 1, 16, 32, bytes.length - 1].map(length => bytes.subarray(0, length))
  return [...shorter, Buffer.of(0), zeros, longer, bytes.toReversed()].map(b => encode(Buffer.from(b)))
}

function degenerate(signature: string, random: Random): string {
  return pick(degenerates(signature), random)
}

/** JWS JSON Serialization, general and flattened, with and without an unprotected header (RFC 7515 7.2). */
function jsonForms([header, payload, signature]: string[]): string[] {
  const flattened = { payload, protected: header, signature }
  const general = { payload, signatures: [{ protected: header, signature }] }
  return [flattened, general, { ...flattened, header: { alg: 'none' } }].map(form => JSON.stringify(form))
}

function flipBit(segment: string, random: Random): string {
  const bytes = Buffer.from(segment, 'base64url')
  if (bytes.length > 0) bytes[random(bytes.length)]! ^= 1 << random(8)
  return encode(bytes)
}

function memberNames(json: string): string[] {
  try {
    return ['sub', ...Object.keys(JSON.parse(json))]
  } catch {
    return ['sub']
  }
}

/** Adds a member before or after the others; it is a duplicate if the name exists. */
function withMember(json: string, name: string, value: string): string {
  return json.length % 2
    ? json.replace('{', `{"${name}":${value},`)
    : json.replace(/}$/, `,"${name}":${value}}`)
}

function withValue(json: string, name: string, value: unknown): string {
  return changed(json, object => ({ ...object, [name]: value }))
}

function ordered(json: string, order: (names: string[]) => string[]): string {
  return changed(json, object =>
    Object.fromEntries(order(Object.keys(object)).map(name => [name, object[name]])),
  )
}

/** If an earlier mutation has left no object, the text stays unchanged. */
function changed(json: string, change: (object: Record<string, unknown>) => object): string {
  try {
    return JSON.stringify(change(JSON.parse(json)))
  } catch {
    return json
  }
}

function escaped(name: string): string {
  return name.replace(/^./, first => `\\u00${first.charCodeAt(0).toString(16).padStart(2, '0')}`)
}

/** A position between two JSON tokens. */
function jsonGap(json: string, random: Random): number {
  const gaps = [...json.matchAll(/[{:,](?=["\d])/g)].map(match => match.index + 1)
  return gaps[random(gaps.length || 1)] ?? 0
}

function inSegment(token: string, random: Random, change: (segment: string) => string): string {
  return inPart(token, random(3), change)
}

function inPart(token: string, index: number, change: (segment: string) => string): string {
  return inSegments(token, parts => parts.map((part, at) => (at === index ? change(part) : part)))
}

function inSegments(token: string, change: (parts: string[]) => string[]): string {
  return change(token.split('.')).join('.')
}

function splice(text: string, at: number, remove: number, insert: string): string {
  return text.slice(0, at) + insert + text.slice(at + remove)
}

function pick<T>(from: readonly T[], random: Random): T {
  return from[random(from.length)]!
}
