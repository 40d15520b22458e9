import proxyaddr from 'proxy-addr'
import { z } from 'zod'
import { urlsByHost } from '../../db/connection-url.ts'

/**
 * Schemas for single settings. No message repeats the value: if two variables are mixed up, the message
 * about one would print the secret of the other.
 */

const UNIT = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 }
const DURATION = /^(?:0|[1-9]\d*)(?:ms|s|m|h|d)$/
const PORT = /^(?:0|[1-9]\d{0,4})$/
// RFC 6265 4.1.1: a cookie's name is a token of RFC 2616 2.2.
const COOKIE_NAME = /^[A-Za-z0-9!#$%&'*+.^_`|~-]+$/

function toMilliseconds(duration: string): number {
  const unit = duration.replace(/^\d+/, '') as keyof typeof UNIT
  return Number.parseInt(duration, 10) * UNIT[unit]
}

/**
 * Parses a duration to milliseconds. The unit is required because an operator who writes 15 may mean minutes.
 */
export function milliseconds(from: string, to: string, example: string) {
  const message = `must be a number and a unit (ms s m h d), from ${from} to ${to}, for example ${example}`
  const range = z.number(message).min(toMilliseconds(from), message).max(toMilliseconds(to), message)
  return z.string().regex(DURATION, message).transform(toMilliseconds).pipe(range)
}

/** In seconds, the unit of NumericDate: a fraction of one could not be kept. */
export function seconds(from: string, to: string, example: string) {
  const whole = z.number().multipleOf(1000, `must be whole seconds, for example ${example}`)
  return milliseconds(from, to, example)
    .pipe(whole)
    .transform(ms => ms / 1000)
}

export function oneOf<const T extends readonly [string, ...string[]]>(...words: T) {
  return z.enum(words, `must be one of ${words.join(', ')}, for example ${words[0]}`)
}

/** `a,b,c`. An empty entry between commas is passed to `entry`, which refuses it. */
export function listOf<T>(entry: z.ZodType<T, string>) {
  return z
    .string()
    .transform(text => text.split(',').map(part => part.trim()))
    .pipe(z.array(entry))
}

// A hostname without a letter is a mistyped address, and would be looked up in DNS.
export const host = z.union(
  [z.ipv4(), z.ipv6(), z.hostname().regex(/[a-z]/i)],
  'must be an address or a host name to listen on, for example 127.0.0.1',
)

const portMessage = 'must be a whole number from 0 to 65535, for example 3001'
export const port = z
  .string()
  .regex(PORT, portMessage)
  .transform(Number)
  .pipe(z.number().max(65_535, portMessage))

// `iss` is compared as a string (RFC 8414 3.3), and clients write URLs in their normal form, so only that form is accepted.
function isIssuer(text: string): boolean {
  if (!/^https?:\/\/[^?#]*[^/?#]$/.test(text) || !URL.canParse(text)) return false
  const url = new URL(text)
  return url.username === '' && url.password === '' && url.href.replace(/\/$/, '') === text
}

export const issuer = z
  .string()
  .refine(
    isIssuer,
    'must be an http or https URL in its normal form (lower-case host, no default port) without user, ' +
      'query, fragment or trailing slash, for example https://auth.example.com',
  )

/** A higher number is a typing error. */
export const MAX_WORKERS = 64

/** A whole number, written without separators. */
export function count(least: number, most: number) {
  const message = `must be a whole number from ${least} to ${most}, for example 6000`
  return z
    .string()
    .regex(/^[1-9]\d{0,14}$/, message)
    .transform(Number)
    .refine(number => number >= least && number <= most, message)
}

const workersMessage = `must be auto (one for each core) or a whole number from 1 to ${MAX_WORKERS}, for example auto`
export const workers = z
  .string()
  .regex(/^(?:auto|[1-9]\d?)$/, workersMessage)
  .transform(text => (text === 'auto' ? ('auto' as const) : Number(text)))
  .refine(count => count === 'auto' || count <= MAX_WORKERS, workersMessage)

const each = (names: string, form: RegExp) => Object.fromEntries(names.split(' ').map(name => [name, form]))

/**
 * The parameters that a database URL may have, and their forms. Some of libpq's are accepted and ignored, because ignoring them
 * weakens nothing. Any other parameter could request a protection that Assay would not provide.
 */
const URL_PARAMETERS: Record<string, RegExp> = {
  ...each('host user password dbname options application_name fallback_application_name', /^./),
  ...each('sslrootcert sslcert sslkey', /^./),
  ...each('connect_timeout keepalives keepalives_idle keepalives_interval keepalives_count', /^\d+$/),
  port: /^[1-9]\d{0,4}(,[1-9]\d{0,4})*$/,
  ssl: /^(true|false|1|0)$/,
  sslmode: /^(disable|prefer|require|verify-ca|verify-full)$/,
  sslnegotiation: /^(postgres|direct)$/,
  channel_binding: /^(disable|prefer|require)$/,
  target_session_attrs: /^(any|read-write|primary)$/,
  client_encoding: /^(utf-?8|auto)$/i,
  gssencmode: /^(disable|prefer)$/,
}

/** Returns the parameters as written, or undefined if one is unknown, repeated, empty or malformed. */
function urlParameters(text: string): Record<string, string> | undefined {
  const found: Record<string, string> = {}
  if (text.includes('#')) return undefined
  for (const part of text.includes('?') ? text.slice(text.indexOf('?') + 1).split('&') : []) {
    const [, name = '', value = ''] = /^([a-z_]+)=([^?]*)$/.exec(part) ?? []
    if (name in found || !URL_PARAMETERS[name]?.test(value)) return undefined
    found[name] = value
  }
  return (found.port ?? '').split(',').some(port => Number(port) > 65_535) ? undefined : found
}

/**
 * Describes the problem with a database URL without repeating the URL. Returns undefined if the URL is valid.
 */
function databaseUrlProblem(text: string): string | undefined {
  if (!isDatabaseUrl(text)) return NO_DATABASE_URL
  const parameters = urlParameters(text)
  if (parameters === undefined) return UNKNOWN_PARAMETER
  return hostsProblem(text, parameters) ?? tlsProblem(parameters)
}

const NO_DATABASE_URL =
  'must be a postgres:// or postgresql:// URL, with special characters in the password percent-encoded, for example ' +
  'postgres://USER:PASSWORD@HOST:5432/DATABASE, or for a Unix socket postgres://USER:PASSWORD@/DATABASE?host=/FOLDER'
const UNKNOWN_PARAMETER =
  'has a parameter that is unknown, repeated or malformed; the known ones are ' +
  `${Object.keys(URL_PARAMETERS).join(', ')}, for example sslmode=verify-full`

/** As in libpq, a list of ports must be as long as the list of hosts. */
function hostsProblem(text: string, { port }: Record<string, string>) {
  const ports = port?.split(',').length ?? 1
  return ports === 1 || ports === urlsByHost(text).length
    ? undefined
    : 'has a different number of ports than hosts; give one for all hosts, or one for each, for example ' +
        'postgres://USER:PASSWORD@HOST1:5432,HOST2:5432/DATABASE'
}

/** Describes a URL whose TLS would be weaker than the URL says. */
function tlsProblem({ sslmode, sslrootcert, channel_binding: binding }: Record<string, string>) {
  const verifies = sslrootcert === 'system' || sslmode === 'verify-full'
  if (sslmode === 'verify-ca' && sslrootcert === undefined)
    return 'has sslmode=verify-ca without a CA; add its file, for example sslrootcert=/etc/ssl/ca.crt'
  if (sslrootcert === 'system' && sslmode !== undefined && sslmode !== 'verify-full')
    return 'has sslrootcert=system with a weaker sslmode; remove or raise the sslmode, for example sslmode=verify-full'
  if (binding === 'require' && !verifies)
    return (
      "has channel_binding=require, which this driver doesn't support, and no check that the certificate is for this " +
      'host; add that check, for example sslrootcert=system'
    )
  return undefined
}

export const databaseUrl = z.string().superRefine((text, context) => {
  const message = databaseUrlProblem(text)
  if (message !== undefined) context.addIssue({ code: 'custom', message })
})

/**
 * The host may be missing if a parameter names it. Spaces and line ends, which URL would drop, are refused as signs of a bad
 * copy.
 */
function isDatabaseUrl(text: string): boolean {
  const isUrl = /^postgres(?:ql)?:\/\/\S+$/.test(text) && !text.includes('%00')
  return isUrl && isDecodable(text) && urlsByHost(text).every(url => URL.canParse(url))
}

/** Accepts what the driver accepts: the path may only be a database number, and the password must decode. */
function isRedisUrl(text: string): boolean {
  if (!/^rediss?:\/\/\S+$/.test(text) || !URL.canParse(text)) return false
  const { hostname, pathname, username, password } = new URL(text)
  return hostname !== '' && /^(\/\d*)?$/.test(pathname) && isDecodable(username + password)
}

function isDecodable(text: string): boolean {
  try {
    decodeURIComponent(text)
    return true
  } catch {
    return false
  }
}

export const redisUrl = z
  .string()
  .refine(
    isRedisUrl,
    'must be a redis:// or rediss:// (TLS) URL, with special characters in the password percent-encoded, ' +
      'for example redis://:PASSWORD@HOST:6379',
  )

export const proxies = listOf(
  z
    .union(
      [z.ipv4(), z.ipv6(), z.cidrv4(), z.cidrv6()],
      'must be an IP address or a CIDR range, for example 10.0.0.0/8,fd00::1',
    )
    .refine(
      isProxyRange,
      'must not contain every address, because any client could then claim any address; list only the proxies, for example 10.0.0.0/8',
    ),
)

/** The library refuses /0. */
function isProxyRange(range: string): boolean {
  try {
    proxyaddr.compile(range)
    return true
  } catch {
    return false
  }
}

export const cookieName = z
  .string()
  .regex(
    COOKIE_NAME,
    'must be a cookie name as in RFC 6265, without spaces or any of ()<>@,;:\\"/[]?={}, for example token',
  )
