import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { CommandError, EXIT } from './errors.ts'

export type Query = Readonly<Record<string, string | boolean | undefined>>

export interface RequestOptions {
  query?: Query
  body?: object
  /** The ETag of the version that was read. The server refuses the change if there has been another one since. */
  ifMatch?: string | undefined
  timeoutMs?: number
}

/** The server's answer. It is typed where it is used. */
// biome-ignore lint/suspicious/noExplicitAny: openapi.yaml describes it.
export type Json = any

const TIMEOUT_MS = 15_000
/**
 * The timeout with `wait`: replicas may take as long as the greatest MAX_STALENESS, less than Node's request timeout.
 */
const WAIT_TIMEOUT_MS = 290_000

/** A running server's API for operators. */
class Api {
  readonly url: string

  constructor(url: string) {
    this.url = url.replace(/\/$/, '')
  }

  /** Throws CommandError. It does not repeat a URL that can't be used: it may hold a password. */
  #assertUrl() {
    const url = URL.parse(this.url)
    const isHttp = url?.protocol === 'http:' || url?.protocol === 'https:'
    if (isHttp && url.username === '' && url.password === '') return
    throw new CommandError(
      EXIT.settings,
      'ASSAY_URL must begin with http:// or https://, without a user and password, for example https://auth.example.com',
    )
  }

  get = (path: string, options?: RequestOptions): Promise<Json> => this.call('GET', path, options)
  post = (path: string, options?: RequestOptions): Promise<Json> => this.call('POST', path, options)
  delete = (path: string, options?: RequestOptions): Promise<Json> => this.call('DELETE', path, options)

  /** Returns the body, or undefined if it is empty. Throws CommandError for everything but a success. */
  async call(method: string, path: string, options: RequestOptions = {}): Promise<Json> {
    const response = await this.send(method, path, options)
    const text = await response.text().catch(error => {
      throw this.#unreachable(error)
    })
    return text === '' ? undefined : this.#parse(text)
  }

  /** Like `call`, without reading the body. */
  async send(
    method: string,
    path: string,
    { query, body, ifMatch, timeoutMs = query?.wait ? WAIT_TIMEOUT_MS : TIMEOUT_MS }: RequestOptions = {},
  ): Promise<Response> {
    const token = readOperatorToken()
    if (token === undefined) throw NO_TOKEN
    const response = await this.fetch(path + formatQuery(query), {
      method,
      headers: {
        Authorization: `Bearer ${token}`,
        ...(body && { 'Content-Type': 'application/json' }),
        ...(ifMatch && { 'If-Match': ifMatch }),
      },
      body: body ? JSON.stringify(body) : null,
      signal: AbortSignal.timeout(timeoutMs),
    })
    if (!response.ok) throw await this.#refusal(response)
    return response
  }

  /** Sends no operator token, and returns any answer. Throws CommandError if no answer comes. */
  async fetch(path: string, init: RequestInit = {}): Promise<Response> {
    this.#assertUrl()
    const response = await fetch(this.url + path, { redirect: 'manual', ...init }).catch(error => {
      throw this.#unreachable(error)
    })
    const location = response.headers.get('location')
    if (response.status >= 300 && response.status < 400 && location !== null) throw this.#redirected(location)
    return response
  }

  /** A redirect is not followed: the operator token would go wherever it leads. */
  #redirected(location: string): CommandError {
    const origin = URL.parse(location, this.url)?.origin ?? 'another URL'
    return new CommandError(
      EXIT.notAssay,
      `${this.url} redirects to ${origin}; set ASSAY_URL to the URL it redirects to`,
    )
  }

  #unreachable(error: unknown): CommandError {
    const { name, cause } = error as { name?: string; cause?: { code?: string } }
    const reason = name === 'TimeoutError' ? 'timed out' : (cause?.code ?? 'no response')
    return new CommandError(
      EXIT.unreachable,
      `${this.url} can't be reached (${reason}); ${remedyFor(reason)}`,
    )
  }

  async #refusal(response: Response): Promise<CommandError> {
    const { status } = response
    const text = await response.text()
    if (FROM_PROXY.has(status) && !text.startsWith('{'))
      return this.#unreachable({ cause: { code: String(status) } })
    const problem = this.#parse(text)
    const { error, detail, error_description, request_id: id } = problem
    const message = detail ?? error_description
    if (error === undefined) return this.notAssay()
    if (status === 401) return new CommandError(EXIT.notAllowed, `${message}; ${SET_TOKEN}`)
    if (status === 403) return new CommandError(EXIT.notAllowed, message)
    if (status === 404 && /nothing at this path/.test(message)) return OTHER_VERSION
    const code = status === 503 || status === 429 ? EXIT.tryAgain : EXIT.refused
    return new CommandError(code, status >= 500 ? `${message} (request ${id})` : message)
  }

  #parse(text: string): Json {
    try {
      return JSON.parse(text)
    } catch {
      throw this.notAssay()
    }
  }

  notAssay() {
    return new CommandError(
      EXIT.notAssay,
      `the server at ${this.url} is not Assay; set ASSAY_URL to the URL of Assay`,
    )
  }
}

/** A proxy answers with these, and a page of its own, while the server behind it can't be reached. */
const FROM_PROXY = new Set([502, 503, 504])

/** Node's codes for a certificate that no trusted CA has signed. */
const UNTRUSTED = /SELF_SIGNED|UNABLE_TO_(GET_ISSUER|VERIFY)|UNTRUSTED/

function remedyFor(reason: string): string {
  if (UNTRUSTED.test(reason)) return 'set NODE_EXTRA_CA_CERTS to the file of its CA certificate'
  if (reason === 'ERR_SSL_WRONG_VERSION_NUMBER') return 'it does not speak TLS; set ASSAY_URL to http://...'
  return 'start the server, or set ASSAY_URL to its URL'
}

export const api = new Api(process.env.ASSAY_URL || 'http://127.0.0.1:3001')

export type { Api }

const SET_TOKEN = 'set ADMIN_TOKEN or ADMIN_TOKEN_FILE'
const NO_TOKEN = new CommandError(
  EXIT.notAllowed,
  `no operator token was found; ${SET_TOKEN}, or DATA_DIR, or run this in the folder that contains the server's ./data`,
)
const OTHER_VERSION = new CommandError(
  EXIT.notAssay,
  'the server has another version, or ASSAY_URL has a path that is not that of Assay; correct it, or use the command line of that version',
)

/** An id as a segment of a path. Any other text is refused, because URL parsers resolve `..` to the path of another resource. */
export function pathSegment(id: string): string {
  if (/^[a-z2-7]+$/.test(id)) return id
  throw new CommandError(EXIT.usage, id.includes('@') ? IS_AN_EMAIL : NOT_AN_ID)
}

const NOT_AN_ID =
  'this command needs the id, which has only lower-case letters and the digits 2 to 7; the list command shows it'
const IS_AN_EMAIL = 'this command needs the id, not the email; `assay customers show EMAIL` shows the id'

function formatQuery(query: Query = {}): string {
  const given = Object.entries(query).filter(([, value]) => value !== undefined && value !== false)
  return given.length === 0
    ? ''
    : `?${new URLSearchParams(given.map(([name, value]) => [name, String(value)]))}`
}

/**
 * From the same settings as the server's, or the file that an embedded server made. Like the server, ignores a byte order mark
 * and blank lines in the file.
 */
function readOperatorToken(): string | undefined {
  const { ADMIN_TOKEN, ADMIN_TOKEN_FILE, DATA_DIR } = process.env
  if (ADMIN_TOKEN) return ADMIN_TOKEN
  const file = ADMIN_TOKEN_FILE || join(DATA_DIR || './data', 'admin.token')
  if (!ADMIN_TOKEN_FILE && !existsSync(file)) return undefined
  try {
    return readFileSync(file, 'utf8').trim() || undefined
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    throw new CommandError(
      EXIT.settings,
      `the operator token in ${file} can't be read (${code}); check the path and the permissions of the file`,
    )
  }
}
