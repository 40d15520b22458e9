import { ApiError } from './errors.ts'

/** The most levels of nesting. Code that reads a token's claims later may recurse, or have its own limit. */
const MAX_DEPTH = 32
/** The most names and values. A request has at most a hundred tokens, or the 1,024 values that fit 2 KiB of claims. */
const MAX_ITEMS = 2_000
/** The most characters of a number. JSON.stringify writes every double in at most 25. */
const MAX_NUMBER_LENGTH = 32

const NOT_JSON = new ApiError('invalid_request', 'the body is not valid JSON; fix its syntax')
const TOO_DEEP = new ApiError(
  'invalid_request',
  `the body is nested deeper than ${MAX_DEPTH} levels; flatten it`,
)
const TOO_MANY_ITEMS = new ApiError(
  'invalid_request',
  `the body has more than ${MAX_ITEMS} names and values; send fewer`,
)
const REPEATED_MEMBER = new ApiError(
  'invalid_request',
  'a field of the body is repeated; send each name once in an object',
)
const INHERITED_NAME = new ApiError(
  'invalid_request',
  'a field of the body is named __proto__, constructor or prototype; rename it',
)
const INEXACT_NUMBER = new ApiError(
  'invalid_request',
  'a number in the body is larger or more precise than a double can represent; send it as a string',
)

/** These names reach what every object inherits. */
const INHERITED = new Set(['__proto__', 'constructor', 'prototype'])

/**
 * Parses JSON that every reader understands in the same way (I-JSON, RFC 7493). Throws `invalid_request` for a repeated
 * member, a number that JSON.parse would change, and a text over the limits above. These are checked before JSON.parse, so
 * that an object or an issue is never built for each of half a million values. JSON.parse decides about the syntax.
 */
export function parseStrictJson(text: string): unknown {
  try {
    new Scanner(text).scan()
    return JSON.parse(text)
  } catch (error) {
    throw error instanceof SyntaxError ? NOT_JSON : error
  }
}

/**
 * Refuses a large body with more commas than a list of tokens can have, before it is decoded to a text of a megabyte. Throws
 * `invalid_request`.
 */
export function assertFewItems(bytes: Buffer): void {
  let commas = 0
  for (let at = bytes.indexOf(COMMA); at >= 0; at = bytes.indexOf(COMMA, at + 1))
    if (++commas > MAX_ITEMS) throw TOO_MANY_ITEMS
}

const COMMA = 0x2c

/** Skips commas, white space and anything that is not JSON. A literal is recognized by its first letter. */
const TOKEN = /["{}[\]:]|-?\d[\d.eE+-]*|[tfn]/g

/** Checks a text in one pass. A text that is not JSON may pass; JSON.parse refuses it. */
class Scanner {
  readonly #text: string
  /** The names of each open object, the innermost last; undefined for an array. */
  readonly #open: (Set<string> | undefined)[] = []
  #items = 0
  /** The string before this token, still quoted. It is a name if the token is a colon. */
  #lastString: string | undefined

  constructor(text: string) {
    this.#text = text
  }

  scan() {
    TOKEN.lastIndex = 0
    let match = TOKEN.exec(this.#text)
    while (match) {
      this.#read(match[0], match.index)
      match = TOKEN.exec(this.#text)
    }
  }

  #read(token: string, start: number) {
    if (token === ':') return this.#addName()
    if (token === '}' || token === ']') return this.#leave()
    if (++this.#items > MAX_ITEMS) throw TOO_MANY_ITEMS
    if (token === '"') this.#readString(start)
    else if (token === '{') this.#enter(new Set())
    else if (token === '[') this.#enter(undefined)
    else if (!/[tfn]/.test(token) && !isExact(token)) throw INEXACT_NUMBER
  }

  #enter(names: Set<string> | undefined) {
    if (this.#open.push(names) > MAX_DEPTH) throw TOO_DEEP
  }

  #leave() {
    if (this.#open.length === 0) throw NOT_JSON
    this.#open.pop()
  }

  #readString(start: number) {
    TOKEN.lastIndex = endOfString(this.#text, start + 1)
    this.#lastString = this.#text.slice(start, TOKEN.lastIndex)
  }

  #addName() {
    const quoted = this.#lastString
    if (quoted === undefined) throw NOT_JSON
    this.#lastString = undefined
    const name: string = quoted.includes('\\') ? JSON.parse(quoted) : quoted.slice(1, -1)
    if (INHERITED.has(name)) throw INHERITED_NAME
    const names = this.#open.at(-1)
    if (names?.has(name)) throw REPEATED_MEMBER
    names?.add(name)
  }
}

/**
 * Matches part of the content at a time: the stack of the regular expression grows with each character of its match.
 */
const STRING_PIECE = /(?:[^"\\]|\\.){1,4096}/sy

/**
 * The index after the closing quote. Does not use charCodeAt, which is slow on the string that Node creates for a
 * large body.
 */
function endOfString(text: string, start: number): number {
  let end = start
  STRING_PIECE.lastIndex = start
  while (STRING_PIECE.test(text)) end = STRING_PIECE.lastIndex
  return end + 1
}

/**
 * Whether the number is a double, in the shortest spelling or with the 17 digits that some encoders write (0.1 is
 * both `0.1` and `0.10000000000000001`), so that reading it loses nothing. Integers without an exponent are limited
 * to 2^53 - 1: beyond it, neighbours share a double (RFC 7493 2.2).
 */
function isExact(number: string): boolean {
  if (number.length > MAX_NUMBER_LENGTH) return false
  const value = Number(number)
  if (/^-?\d+$/.test(number)) return Number.isSafeInteger(value)
  const decimal = toDecimal(number)
  return decimal === toDecimal(String(value)) || decimal === toDecimal(value.toPrecision(17))
}

const NUMBER = /^-?(\d+)(?:\.(\d+))?(?:e([+-]?\d+))?$/i

/**
 * The same text for all spellings of a value, without its sign: `1.50` and `15e-1` are `15e-1`. The result is empty for zero and
 * for a text that is not a number.
 */
function toDecimal(number: string): string {
  const [, whole = '', fraction = '', exponent = '0'] = NUMBER.exec(number) ?? []
  const digits = (whole + fraction).replace(/^0+/, '')
  const significant = digits.replace(/0+$/, '')
  const power = Number(exponent) - fraction.length + digits.length - significant.length
  return significant && `${significant}e${power}`
}
