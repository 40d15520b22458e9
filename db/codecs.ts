/**
 * How values travel, as text, between JavaScript and Postgres: one table for both drivers, by the number (oid) that Postgres
 * has for a type. A type that isn't here is read as text.
 */

export interface Codec {
  /** The oid of the type, and of the type that is an array of it. */
  oid: number
  arrayOid: number
  parse(text: string): unknown
  /** Never called with null. What is a string already is sent as it is. */
  serialize(value: unknown): string
}

/** Whole numbers beyond 2^53 would be rounded by JavaScript; Assay has none, and refuses to read one. */
function parseInteger(text: string): number {
  const number = Number(text)
  if (!Number.isSafeInteger(number)) throw new RangeError('an integer that JavaScript can not hold')
  return number
}

const INSTANT = /^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)?[+-]\d\d(:\d\d)?$/

/** Microseconds are cut off: a Date has milliseconds. assay.now() writes whole milliseconds, so nothing of it is lost. */
function parseInstant(text: string): Date {
  if (!INSTANT.test(text)) throw new RangeError('a timestamp that JavaScript can not hold')
  // ISO 8601: of any other form JavaScript takes the year 0099 for 1999.
  return new Date(text.replace(' ', 'T').replace(/[+-]\d\d$/, '$&:00'))
}

/** sessionSettings asks for this form; the other one, `escape`, would be read as something else. */
function parseBytes(text: string): Buffer {
  if (!text.startsWith('\\x')) throw new TypeError('bytes that are not written as hex')
  return Buffer.from(text.slice(2), 'hex')
}

/** For a parameter of whatever type: what Postgres reads back as the same value. */
function toText(value: unknown): string {
  if (typeof value === 'string') return value
  if (value instanceof Date) return value.toISOString()
  if (value instanceof Uint8Array) return `\\x${Buffer.from(value).toString('hex')}`
  return typeof value === 'object' ? JSON.stringify(value) : String(value)
}

/** Dates and Uint8Arrays too are written as JSON has them. */
const toJson = (value: unknown) => (typeof value === 'string' ? value : JSON.stringify(value))

const asText = (text: string) => text

const codec = (oid: number, arrayOid: number, parse: Codec['parse'], serialize = toText): Codec => ({
  oid,
  arrayOid,
  parse,
  serialize,
})

const SCALARS: Codec[] = [
  codec(16, 1000, text => text === 't'), // boolean
  codec(17, 1001, parseBytes), // bytea
  codec(20, 1016, parseInteger), // int8
  codec(21, 1005, Number), // int2
  codec(23, 1007, Number), // int4
  codec(26, 1028, Number), // oid
  codec(700, 1021, Number), // float4
  codec(701, 1022, Number), // float8
  codec(25, 1009, asText), // text
  codec(1043, 1015, asText), // varchar
  codec(19, 1003, asText), // name
  codec(1082, 1182, asText), // date
  // Without a time zone it names no instant.
  codec(1114, 1115, asText), // timestamp
  codec(1184, 1185, parseInstant), // timestamptz
  codec(114, 199, text => JSON.parse(text), toJson), // json
  codec(3802, 3807, text => JSON.parse(text), toJson), // jsonb
]

const ELEMENT = /"((?:[^"\\]|\\.)*)"|[^,{}]+/gs

/** `{a,"b, c",NULL}`. Throws for more than one dimension. */
const parseArray =
  ({ parse }: Codec) =>
  (text: string): unknown[] => {
    if (!/^\{(?!\{)/.test(text)) throw new TypeError('an array that has not one dimension, counted from 1')
    return Array.from(text.slice(1, -1).matchAll(ELEMENT), ([whole, quoted]) => {
      if (quoted !== undefined) return parse(quoted.replace(/\\(.)/gs, '$1'))
      return whole === 'NULL' ? null : parse(whole)
    })
  }

const serializeArray = (element: Codec) => (value: unknown) =>
  Array.isArray(value)
    ? `{${value.map(one => (one == null ? 'NULL' : quoted(element.serialize(one)))).join(',')}}`
    : toText(value)

const quoted = (text: string) => `"${text.replace(/["\\]/g, '\\$&')}"`

const arrayOf = (element: Codec): Codec =>
  codec(element.arrayOid, 0, parseArray(element), serializeArray(element))

export const CODECS: Codec[] = [...SCALARS, ...SCALARS.map(arrayOf)]

/** As postgres.js takes them. */
export const postgresTypes = () =>
  Object.fromEntries(
    CODECS.map(({ oid, parse, serialize }) => [`oid${oid}`, { to: oid, from: [oid], parse, serialize }]),
  )

/** As PGlite takes them. */
export const pgliteTypes = () => ({
  parsers: Object.fromEntries(CODECS.map(({ oid, parse }) => [oid, parse])),
  serializers: Object.fromEntries(CODECS.map(({ oid, serialize }) => [oid, serialize])),
})
