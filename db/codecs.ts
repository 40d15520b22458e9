/**
 * Converts values between JavaScript and Postgres's text format. Both drivers use this one table, by the number (oid) of a
 * type. Values of other types are read as text.
 */

interface Codec {
  /** The oid of the type, and of the type that is an array of it. */
  oid: number
  arrayOid: number
  parse(text: string): unknown
  /** Never called with null. Strings are sent as they are. */
  serialize(value: unknown): string
}

/** JavaScript would round integers beyond 2^53. Assay stores none, so reading one is an error. */
function parseInteger(text: string): number {
  const number = Number(text)
  if (!Number.isSafeInteger(number)) throw new RangeError("an integer that JavaScript can't represent")
  return number
}

const INSTANT = /^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)?[+-]\d\d(:\d\d)?$/

/** Cuts off microseconds, which a Date can't hold. assay.now() returns whole milliseconds, so no time of ours has any. */
function parseInstant(text: string): Date {
  if (!INSTANT.test(text)) throw new RangeError("a timestamp that JavaScript can't represent")
  // Converted to ISO 8601, because JavaScript reads the year 0099 in Postgres's own format as 1999.
  return new Date(text.replace(' ', 'T').replace(/[+-]\d\d$/, '$&:00'))
}

/** Throws for the format `escape`. REQUIRED_SETTINGS in server-info.ts sets hex. */
function parseBytes(text: string): Buffer {
  if (!text.startsWith('\\x')) throw new TypeError('bytes that are not in hex format')
  return Buffer.from(text.slice(2), 'hex')
}

/** Serializes a parameter of any type but JSON. */
function toText(value: unknown): string {
  if (typeof value === 'string') return value
  if (value instanceof Date) return value.toISOString()
  if (value instanceof Uint8Array) return `\\x${Buffer.from(value).toString('hex')}`
  return typeof value === 'object' ? JSON.stringify(value) : String(value)
}

/** A string is JSON already. */
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
  // A timestamp without a time zone is no instant, so it is read as text.
  codec(1114, 1115, asText), // timestamp
  codec(1184, 1185, parseInstant), // timestamptz
  codec(114, 199, text => JSON.parse(text), toJson), // json
  codec(3802, 3807, text => JSON.parse(text), toJson), // jsonb
]

const ELEMENT = /"((?:[^"\\]|\\.)*)"|[^,{}]+/gs

/** Parses arrays like `{a,"b, c",NULL}`. Throws for more than one dimension. */
const parseArray =
  ({ parse }: Codec) =>
  (text: string): unknown[] => {
    if (!/^\{(?!\{)/.test(text))
      throw new TypeError('an array that is not one-dimensional with lower bound 1')
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

const CODECS = [...SCALARS, ...SCALARS.map(arrayOf)]

/** The codecs in the form that the options of postgres.js expect. */
export const POSTGRES_TYPES = Object.fromEntries(
  CODECS.map(({ oid, parse, serialize }) => [`oid${oid}`, { to: oid, from: [oid], parse, serialize }]),
)

/** The codecs in the form that PGlite keeps them in. */
export const PGLITE_PARSERS = Object.fromEntries(CODECS.map(({ oid, parse }) => [oid, parse]))
export const PGLITE_SERIALIZERS = Object.fromEntries(CODECS.map(({ oid, serialize }) => [oid, serialize]))
