import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { ApiError } from '../server/lib/errors.ts'
import { assertFewItems, parseStrictJson } from '../server/lib/strict-json.ts'
import { SEED, trials } from './support/trials.ts'

/** An accepted text is parsed as by JSON.parse. A refused text is one of our errors. */

const RUN = { seed: SEED, numRuns: trials(1_000_000, 3_000) }

/** Undefined if the text is accepted. */
function refusal(text: string): string | undefined {
  try {
    parseStrictJson(text)
  } catch (error) {
    if (!(error instanceof ApiError) || error.code !== 'invalid_request') throw error
    return error.message
  }
}

const isJson = (text: string) => {
  try {
    JSON.parse(text)
    return true
  } catch {
    return false
  }
}

describe('a repeated member is refused', () => {
  test.each([
    ['at the top', '{"subject":"a","subject":"b"}'],
    ['with the same value', '{"subject":"a","subject":"a"}'],
    ['spelled with an escape', '{"subject":"a","s\\u0075bject":"b"}'],
    ['both spelled with escapes', '{"\\u0061":1,"\\u0061":2}'],
    ['that is a quote', '{"\\"":1,"\\u0022":2}'],
    ['that is a backslash', '{"\\\\":1,"\\u005c":2}'],
    ['with an escaped slash', '{"/":1,"\\/":2}'],
    ['beyond the BMP', '{"\u{1f511}":1,"\\ud83d\\udd11":2}'],
    ['without a character', '{"":1,"":2}'],
    ['in an object of a list', '{"claims":{"a":[0,{"b":1,"b":2}]}}'],
    ['around another object', '{"a":{"b":{"c":1}},"a":1}'],
    ['before white space and a colon', '{"a" \n\t:1,"a"\r :2}'],
  ])('%s', (_, text) => {
    expect(isJson(text)).toBe(true)
    expect(refusal(text)).toMatch(/field of the body is repeated; send each name once/)
  })

  test('but not the same name in different objects, or as a value', () => {
    const text = '{"a":{"a":"a"},"b":[{"a":1},{"a":"a:"},"a","a"],"A":"\\"a\\":"}'
    expect(parseStrictJson(text)).toEqual(JSON.parse(text))
  })
})

describe('a number is refused where a double would change it', () => {
  const LARGEST = Number.MAX_SAFE_INTEGER
  test.each([
    ...['9007199254740993', '9007199254740992', '-9007199254740993', '12345678901234567890'],
    ...['1e400', '-1e400', '1e-400', '5e-325', '3e-324', '1.7976931348623159e308', '1e99999999999999999999'],
    ...[
      '3.141592653589793238462643383279',
      '0.30000000000000001',
      '9007199254740993.0',
      '90071992547409930e-1',
    ],
    ...['9007199254740993e0', '1.00000000000000001', '123456789012345678e3', `0.1${'0'.repeat(40)}`],
    '1'.repeat(50),
  ])('%s', number => {
    for (const text of [number, `{"claims":{"a":[{"n":${number}}]}}`, ` [ ${number} ] `])
      expect(refusal(text), text).toMatch(/number in the body is larger or more precise .* as a string/)
  })

  test.each([
    ...['0', '-0', '0.0', '0e400', '0.1', '-0.1', '0.10', '1.0', '1.50e0', '100e-2', '1E5', '1e+21', '1e300'],
    ...[`${LARGEST}`, `-${LARGEST}`, '5e-324', '1.7976931348623157e308', '0.30000000000000004', '2.50E-7'],
    ...['4.35', '1767605400.123', '123456789.123456', '0.10000000000000001', '-4.9406564584124654e-324'],
  ])('but not %s', number => {
    expect(parseStrictJson(`[${number}]`)).toEqual([JSON.parse(number)])
  })

  test('a double may be spelled as by any encoder, and in no other way', () => {
    const digits = (maxLength: number) => fc.stringMatching(/^\d+$/, { maxLength })
    const spelled = fc
      .tuple(
        fc.constantFrom('', '-'),
        digits(19),
        fc.option(digits(20)),
        fc.option(fc.integer({ min: -340, max: 340 })),
      )
      .map(([sign, whole, fraction, power]) => {
        const point = fraction === null ? '' : `.${fraction}`
        return `${sign}${whole.replace(/^0+(?=\d)/, '')}${point}${power === null ? '' : `e${power}`}`
      })
      .filter(text => text.length <= 32)
    const written = fc.double({ noNaN: true, noDefaultInfinity: true }).map(value => JSON.stringify(value))
    fc.assert(
      fc.property(fc.oneof(spelled, written), number => {
        const value: number = JSON.parse(number)
        const isWhole = /^-?\d+$/.test(number)
        const spellings = [JSON.stringify(value), value.toPrecision(17)]
        const keeps = Number.isFinite(value) && spellings.some(one => isSameValue(number, one))
        const isFine = keeps && (!isWhole || Number.isSafeInteger(value))
        expect(refusal(number) === undefined, number).toBe(isFine)
      }),
      RUN,
    )
  })
})

/** Compares with integers of any size: both numbers are fractions over powers of ten. */
function isSameValue(one: string, other: string): boolean {
  const [a, b] = [toFraction(one), toFraction(other)]
  return a.numerator * b.denominator === b.numerator * a.denominator
}

function toFraction(number: string) {
  const [mantissa = '', power = '0'] = number.toLowerCase().split('e')
  const [whole = '', fraction = ''] = mantissa.split('.')
  const exponent = Number(power) - fraction.length
  const value = BigInt(whole.replace('-', '') + fraction) * (whole.startsWith('-') ? -1n : 1n)
  return exponent < 0
    ? { numerator: value, denominator: 10n ** BigInt(-exponent) }
    : { numerator: value * 10n ** BigInt(exponent), denominator: 1n }
}

describe('a name that every object inherits is refused', () => {
  test.each(['__proto__', 'constructor', 'prototype', '\\u005f_proto__', 'c\\u006fnstructor'])('%s', name => {
    for (const text of [`{"${name}":1}`, `{"a":[{"${name}" : {}}]}`])
      expect(refusal(text)).toMatch(/is named __proto__, constructor or prototype; rename it/)
    expect(parseStrictJson(`["${name}",{"x":"${name}"}]`)).toBeDefined()
  })
})

describe('a text is bounded', () => {
  const nested = (levels: number, open = '[', close = ']') => open.repeat(levels) + close.repeat(levels)

  test('to 32 levels', () => {
    expect(refusal(nested(32))).toBeUndefined()
    for (const text of [nested(33), `{"a":${nested(32)}}`, nested(500_000), '{"a":'.repeat(33)])
      expect(refusal(text)).toMatch(/deeper than 32 levels/)
  })

  test('to 2,000 names and values', () => {
    const list = (many: number, item: string) => `[${Array(many - 1).fill(item)}]`
    for (const item of ['1', '""', 'true', 'false', 'null', '[]', '{}']) {
      expect(refusal(list(2_000, item)), item).toBeUndefined()
      expect(refusal(list(2_001, item)), item).toMatch(/more than 2000 names and values/)
    }
    const members = Array.from({ length: 1_000 }, (_, i) => `"${i}":${i}`)
    expect(refusal(`{${members}}`)).toMatch(/more than 2000 names and values/)
    expect(refusal(`{${members.slice(1)}}`)).toBeUndefined()
  })

  test('but a string may be as long as the body, whatever it contains', () => {
    for (const piece of [
      'x',
      '\\"',
      '\\\\',
      '\\u00e9',
      '\\u4e2d',
      '\u4e2d',
      '1,',
      '{"a":'.replaceAll('"', '\\"'),
    ]) {
      const text = `{"tokens":["${piece.repeat(1_000_000 / piece.length)}"]}`
      expect(parseStrictJson(text)).toEqual(JSON.parse(text))
    }
  })
})

/** A value as any encoder may spell it: with white space and escapes where JSON allows them. */
const spelledJson = fc
  .tuple(fc.jsonValue({ maxDepth: 5 }), fc.infiniteStream(fc.nat(7)))
  .map(([value, stream]) => {
    const pick = () => stream.next().value as number
    const space = () => ['', '', '', '', ' ', '\n', '\t', ' \r\n '][pick()]
    const spell = (unit: string) =>
      pick() === 0
        ? `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`
        : JSON.stringify(unit).slice(1, -1)
    const string = (text: string) => `"${text.split('').map(spell).join('')}"`
    const write = (one: unknown): string => {
      if (typeof one === 'string') return string(one)
      if (Array.isArray(one)) return `[${space()}${one.map(write).join(`${space()},${space()}`)}${space()}]`
      if (typeof one !== 'object' || one === null) return JSON.stringify(one)
      const members = Object.entries(one).map(
        ([name, member]) => `${space()}${string(name)}${space()}:${space()}${write(member)}`,
      )
      return `{${members.join(`${space()},`)}${space()}}`
    }
    return `${space()}${write(value)}${space()}`
  })

const ODD_NUMBER = /larger or more precise/
const INHERITED = /is named __proto__/

test('an accepted text is read as by JSON.parse, in any spelling', () => {
  fc.assert(
    fc.property(spelledJson, text => {
      const refused = refusal(text)
      if (refused === undefined) expect(parseStrictJson(text)).toEqual(JSON.parse(text))
      // Its names differ by construction.
      else expect(refused).toMatch(new RegExp(`${ODD_NUMBER.source}|${INHERITED.source}`))
    }),
    RUN,
  )
})

test('any text is refused where JSON.parse refuses it, and otherwise read as by JSON.parse', () => {
  const pieces = [
    '{',
    '}',
    '[',
    ']',
    ':',
    ',',
    '"',
    '\\',
    '"a"',
    '"\\u0061"',
    '1',
    '-',
    '.5',
    'e9',
    'true',
    'nul',
    ' ',
  ]
  const soup = fc.array(fc.constantFrom(...pieces), { maxLength: 30 }).map(all => all.join(''))
  const damaged = fc
    .tuple(spelledJson, fc.nat(), fc.constantFrom(...pieces))
    .map(
      ([text, at, piece]) =>
        text.slice(0, at % (text.length + 1)) + piece + text.slice((at % (text.length + 1)) + 1),
    )
  fc.assert(
    fc.property(fc.oneof(soup, damaged), text => {
      const refused = refusal(text)
      if (!isJson(text)) expect(refused).toBeDefined()
      else if (refused === undefined) expect(parseStrictJson(text)).toEqual(JSON.parse(text))
    }),
    RUN,
  )
})

test('a repeated member is found at any place, in any spelling', () => {
  const member = fc.tuple(fc.string(), fc.boolean()).filter(([name]) => name !== '' && isUsual(name))
  fc.assert(
    fc.property(
      member,
      fc.array(fc.constantFrom('{"x":', '[0,'), { maxLength: 20 }),
      ([name, escaped], path) => {
        const again = escaped ? escapeFirst(name) : JSON.stringify(name)
        const close = path.map(open => (open[0] === '{' ? '}' : ']')).reverse()
        const text = `${path.join('')}{${JSON.stringify(name)}:1,${again}:2}${close.join('')}`
        expect(isJson(text)).toBe(true)
        expect(refusal(text)).toMatch(/is repeated/)
      },
    ),
    RUN,
  )
})

const isUsual = (name: string) => !['__proto__', 'constructor', 'prototype'].includes(name)

const escapeFirst = (name: string) =>
  `"\\u${name.charCodeAt(0).toString(16).padStart(4, '0')}${JSON.stringify(name.slice(1)).slice(1)}`

test('bytes with more than two thousand commas are refused before they are decoded', () => {
  expect(() => assertFewItems(Buffer.from(','.repeat(2_000)))).not.toThrow()
  expect(() => assertFewItems(Buffer.from(`[${','.repeat(2_001)}]`))).toThrow(
    /more than 2000 names and values/,
  )
})
