export interface BannerOptions {
  host: string
  port: number
  /** The folder of the embedded database. */
  folder: string
  /** The file of the operator token. Undefined if the token is set by ADMIN_TOKEN. */
  tokenFile: string | undefined
  /** Whether npm started the server. */
  byNpm: boolean
}

/** Tells the operator what is needed after a first start: the server's URL, where the operator token is, and the next command. */
export function banner({ host, port, folder, tokenFile, byNpm }: BannerOptions): string {
  const url = `http://${nameOf(host)}:${port}`
  const settings = [
    ...(url === DEFAULT_URL ? [] : [`ASSAY_URL=${url}`]),
    ...(tokenFile === undefined || folder === DEFAULT_FOLDER ? [] : [`DATA_DIR='${folder}'`]),
  ]
  const command = [...settings, byNpm ? 'npm run assay --' : 'assay', 'customers create me@example.com']
  return `
  Assay listens on ${url}
  Operator token:  ${tokenFile ?? 'in ADMIN_TOKEN'}
  Next, in another terminal, create a customer and its API key:

    ${command.join(' ')}

`
}

/** The defaults of the command line. */
const DEFAULT_URL = 'http://localhost:3001'
const DEFAULT_FOLDER = './data'

const HERE = ['0.0.0.0', '127.0.0.1', '::', '::1']

/**
 * Formats the host for a URL: IPv6 addresses get brackets, wildcard and loopback addresses become localhost.
 */
function nameOf(host: string): string {
  if (HERE.includes(host)) return 'localhost'
  return host.includes(':') ? `[${host}]` : host
}
