import { readFileSync } from 'node:fs'
import { type ConnectionOptions, checkServerIdentity } from 'node:tls'

/** A database's URL in the forms that libpq defines, of which the driver knows only some. */

/** One server that the URL names. */
export interface Host {
  host: string
  port: number
  /** Undefined: in plain text. */
  tls: ConnectionOptions | undefined
  /** TLS begins at once, and Postgres isn't asked for it first. */
  isDirect: boolean
}

export interface Target {
  hosts: Host[]
  /** Undefined: as the environment has it (PGUSER, PGPASSWORD), or the user who runs this process. */
  user: string | undefined
  password: string | undefined
  database: string | undefined
  /** Command-line options for the session: `-c name=value`. */
  options: string | undefined
  sessions: 'any' | 'read-write' | 'primary'
}

/** Stands where a URL names no host. */
const NO_HOST = '_'

const PARTS = /^(postgres(?:ql)?:\/\/(?:[^/?#]*@)?)([^/?#]*)([^?]*)(.*)$/s

/** The URL once for each host that it names: `//a:1,b:2/` and `?host=a,b&port=1,2`. One port may serve all of them. */
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
    user: part('user', first.username),
    password: part('password', first.password),
    database: part('dbname', first.pathname.slice(1)),
    options: query.get('options') ?? undefined,
    sessions: sessionsOf(query, others.length > 0),
  }
}

/** Of several servers Assay needs the one that it can write to, also where the URL doesn't say so. */
const sessionsOf = (query: URLSearchParams, isOneOfSeveral: boolean) =>
  (query.get('target_session_attrs') ?? (isOneOfSeveral ? 'read-write' : 'any')) as Target['sessions']

function addressOf({ hostname, port, searchParams: query }: URL) {
  const written = hostname === NO_HOST ? '' : decodeURIComponent(hostname.replace(/^\[(.+)\]$/, '$1'))
  const host = query.get('host') || written || 'localhost'
  return { host, port: Number(query.get('port') || port || 5432) }
}

/** The certificate is checked for this host, by name or address; without `host` Node would check it for "localhost". */
function checked(one: Host): Host {
  // A Unix socket leads to this machine: libpq encrypts nothing there either.
  if (one.host.startsWith('/')) return { ...one, tls: undefined }
  if (!one.tls || one.tls.checkServerIdentity || one.tls.rejectUnauthorized === false) return one
  return {
    ...one,
    tls: { ...one.tls, checkServerIdentity: (_, cert) => checkServerIdentity(one.host, cert) },
  }
}

const TLS_PARAMETERS = ['sslrootcert', 'sslcert', 'sslkey']

/** libpq's modes. A URL that names certificates, or says `ssl=true`, and no mode, has the strictest. */
function modeOf(query: URLSearchParams): string {
  const isAsked =
    ['true', '1'].includes(query.get('ssl') ?? '') ||
    query.get('sslnegotiation') === 'direct' ||
    TLS_PARAMETERS.some(name => query.has(name))
  return query.get('sslmode') ?? (isAsked ? 'verify-full' : 'disable')
}

/**
 * What the mode asks for. `prefer` is `require`: a server without TLS is an error that says so, and no reason to send what
 * was to be encrypted in plain text. `sslrootcert=system` trusts the usual public CAs, as Node does when no CA is given.
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
  // With a CA `require` checks as verify-ca does: that it signed the certificate, for whatever host.
  if (mode === 'verify-ca' || (mode === 'require' && ca))
    return { ...files, checkServerIdentity: () => undefined }
  return { ...files, rejectUnauthorized: false }
}
