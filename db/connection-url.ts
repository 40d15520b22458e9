import { readFileSync } from 'node:fs'
import { type ConnectionOptions, checkServerIdentity } from 'node:tls'

/** Parses database URLs as libpq defines them. The driver knows only some of the forms. */

/** One of the servers that the URL names. */
export interface Host {
  host: string
  port: number
  /** Undefined: the connection is not encrypted. */
  tls: ConnectionOptions | undefined
  /** TLS begins at once, without SSLRequest. */
  isDirect: boolean
}

export interface Target {
  hosts: Host[]
  /** Undefined: from the environment (PGUSER, PGPASSWORD), or the user who runs this process. */
  user: string | undefined
  password: string | undefined
  /** Returns the URL with the newest user and password. Undefined if these can't change. */
  reread?: (() => Promise<string>) | undefined
  database: string | undefined
  /** Command-line options for the session: `-c name=value`. */
  options: string | undefined
  sessions: 'any' | 'read-write' | 'primary'
}

/** A placeholder for a missing host. */
const NO_HOST = '_'

const PARTS = /^(postgres(?:ql)?:\/\/(?:[^/?#]*@)?)([^/?#]*)([^?]*)(.*)$/s

/** Returns one URL for each host: of `//a:1,b:2/` and of `?host=a,b&port=1,2`. One port can be for all of them. */
export function urlsByHost(url: string): string[] {
  const [, before = '', authority = '', path = '', query = ''] = PARTS.exec(url) ?? []
  const listed = (name: string) => new RegExp(`[?&]${name}=([^&]*)`).exec(query)?.[1]?.split(',')
  const [hosts, ports] = [listed('host'), listed('port')]
  const authorities = authority.split(',')
  return Array.from({ length: Math.max(hosts?.length ?? authorities.length, 1) }, (_, i) => {
    const own = query
      .replace(/([?&]host=)[^&]*/, (_, name) => `${name}${hosts?.[i]}`)
      .replace(/([?&]port=)[^&]*/, (_, name) => `${name}${ports?.[i] ?? ports?.[0]}`)
    return `${before}${authorities[i] || authorities[0] || NO_HOST}${path}${own}`
  })
}

/** Throws if the URL or a file that it names can't be read. */
export function parseConnectionUrl(url: string): Target {
  const [first, ...others] = urlsByHost(url).map(one => new URL(one)) as [URL, ...URL[]]
  const query = first.searchParams
  const part = (name: string, written: string) =>
    query.get(name) ?? (decodeURIComponent(written) || undefined)
  const tls = tlsOptions(query)
  const isDirect = query.get('sslnegotiation') === 'direct'
  return {
    hosts: [first, ...others].map(one => ({ ...addressOf(one), isDirect, tls })).map(checked),
    ...loginIn(first),
    database: part('dbname', first.pathname.slice(1)),
    options: query.get('options') ?? undefined,
    sessions: sessionsOf(query, others.length > 0),
  }
}

/** The user and password that a URL names. Throws if they are malformed. */
export const parseLogin = (url: string) => loginIn(new URL(urlsByHost(url)[0]!))

const loginIn = ({ searchParams: query, username, password }: URL) => ({
  user: query.get('user') ?? (decodeURIComponent(username) || undefined),
  password: query.get('password') ?? (decodeURIComponent(password) || undefined),
})

/** Whether two URLs, of Postgres or of Redis, are equal except for the user and the password. */
export const isSamePlace = (one: string, other: string): boolean => placeIn(one) === placeIn(other)

/** If the URL names no database, Postgres uses the user's name. */
function placeIn(url: string): string {
  const isRedis = url.startsWith('redis')
  const { searchParams: query, pathname, username } = new URL(isRedis ? url : urlsByHost(url)[0]!)
  const isNamed = query.has('dbname') || pathname.length > 1 || isRedis
  const rest = url.replace(/^(\w+:\/\/)[^/?#]*@/, '$1').replace(/([?&])(user|password)=[^&]*/g, '$1')
  return isNamed ? rest : `${rest} ${query.get('user') ?? username}`
}

/** With several hosts, Assay connects to a writable server unless the URL requests another kind. */
const sessionsOf = (query: URLSearchParams, isOneOfSeveral: boolean) =>
  (query.get('target_session_attrs') ?? (isOneOfSeveral ? 'read-write' : 'any')) as Target['sessions']

function addressOf({ hostname, port, searchParams: query }: URL) {
  const written = hostname === NO_HOST ? '' : decodeURIComponent(hostname.replace(/^\[(.+)\]$/, '$1'))
  const host = query.get('host') || written || 'localhost'
  return { host, port: Number(query.get('port') || port || 5432) }
}

/** Makes TLS check the certificate against this host, which is a name or an address. */
function checked(one: Host): Host {
  // Like libpq, use no TLS on Unix sockets, which lead to this machine.
  if (one.host.startsWith('/')) return { ...one, tls: undefined }
  if (!one.tls || one.tls.checkServerIdentity || one.tls.rejectUnauthorized === false) return one
  return {
    ...one,
    tls: { ...one.tls, checkServerIdentity: (_, cert) => checkServerIdentity(one.host, cert) },
  }
}

const TLS_PARAMETERS = ['sslrootcert', 'sslcert', 'sslkey']

/** Returns libpq's sslmode. A URL that names certificates or has `ssl=true`, but no mode, gets the strictest. */
function modeOf(query: URLSearchParams): string {
  const isAsked =
    ['true', '1'].includes(query.get('ssl') ?? '') ||
    query.get('sslnegotiation') === 'direct' ||
    TLS_PARAMETERS.some(name => query.has(name))
  return query.get('sslmode') ?? (isAsked ? 'verify-full' : 'disable')
}

/**
 * `prefer` means `require`: without TLS the connection fails, because the password must not be sent in plain text.
 * `sslrootcert=system` trusts the usual public CAs, as Node does when no CA is given.
 */
function tlsOptions(query: URLSearchParams): ConnectionOptions | undefined {
  const mode = modeOf(query)
  if (mode === 'disable') return undefined
  const [ca, cert, key] = TLS_PARAMETERS.map(name => {
    const file = query.get(name)
    return file === null || (name === 'sslrootcert' && file === 'system') ? undefined : readFileSync(file)
  })
  const files = { ...(ca && { ca }), ...(cert && { cert }), ...(key && { key }) }
  if (mode === 'verify-full') return files
  // With a CA, `require` is `verify-ca`: the CA must have signed the certificate, for any host.
  if (mode === 'verify-ca' || (mode === 'require' && ca))
    return { ...files, checkServerIdentity: () => undefined }
  return { ...files, rejectUnauthorized: false }
}
