import { CommandError, EXIT } from './command.ts'

export interface Ask {
  query?: { readonly [name: string]: string | boolean | undefined }
  body?: object
  /** The ETag of what was read: nothing is changed if another change came between. */
  ifMatch?: string | undefined
  /** How long to wait (ms). */
  patience?: number
}

/** What the server answers in JSON. */
// biome-ignore lint/suspicious/noExplicitAny: openapi.yaml says what it is.
export type Answer = any

const TIMEOUT_MS = 15_000
/** Until every replica goes by it: as long as MAX_STALENESS may be, but for what ends a connection (ms). */
const WAIT_TIMEOUT_MS = 290_000

/** A running server's API for operators. */
export class Api {
  readonly url: string
  readonly #token: () => string | undefined

  /** `token`: asked for when it is needed. */
  constructor({ url, token }: { url: string; token: () => string | undefined }) {
    this.url = url.replace(/\/$/, '')
    this.#token = token
  }

  get = (path: string, ask?: Ask): Promise<Answer> => this.call('GET', path, ask)
  post = (path: string, ask?: Ask): Promise<Answer> => this.call('POST', path, ask)
  delete = (path: string, ask?: Ask): Promise<Answer> => this.call('DELETE', path, ask)

  /** The body, undefined where there is none. Throws CommandError for everything but a success. */
  async call(method: string, path: string, ask: Ask = {}): Promise<Answer> {
    const response = await this.send(method, path, ask)
    const text = await response.text().catch(error => {
      throw this.#unreachable(error)
    })
    return text === '' ? undefined : parsed(text, this.url)
  }

  /** As `call`, before its body is read. */
  async send(
    method: string,
    path: string,
    { query, body, ifMatch, patience = query?.wait ? WAIT_TIMEOUT_MS : TIMEOUT_MS }: Ask = {},
  ): Promise<Response> {
    const token = this.#token()
    if (token === undefined) throw NO_TOKEN
    const response = await this.fetch(path + queryOf(query), {
      method,
      headers: {
        Authorization: `Bearer ${token}`,
        ...(body && { 'Content-Type': 'application/json' }),
        ...(ifMatch && { 'If-Match': ifMatch }),
      },
      body: body ? JSON.stringify(body) : null,
      signal: AbortSignal.timeout(patience),
    })
    if (!response.ok) throw await this.#refusal(response)
    return response
  }

  /** Any answer. Throws CommandError where there is none. */
  fetch(path: string, init: RequestInit = {}): Promise<Response> {
    return fetch(this.url + path, { redirect: 'error', ...init }).catch(error => {
      throw this.#unreachable(error)
    })
  }

  #unreachable(error: unknown): CommandError {
    const { name, cause } = error as { name?: string; cause?: { code?: string } }
    const why = name === 'TimeoutError' ? 'no answer in time' : (cause?.code ?? 'no answer')
    return new CommandError(
      EXIT.unreachable,
      `${this.url} can't be reached (${why}); is the server running there? ASSAY_URL names another`,
    )
  }

  async #refusal(response: Response): Promise<CommandError> {
    const problem = parsed(await response.text(), this.url)
    const { status } = response
    const { error, detail, error_description, request_id: id } = problem
    const said = detail ?? error_description
    if (error === undefined) return notAssay(this.url)
    if (status === 401) return new CommandError(EXIT.notAllowed, `${said}; ${TOKEN_FROM}`)
    if (status === 403) return new CommandError(EXIT.notAllowed, said)
    if (status === 404 && /nothing at this path/.test(said)) return OLDER
    const code = status === 503 || status === 429 ? EXIT.tryAgain : EXIT.refused
    return new CommandError(code, status >= 500 ? `${said} (request ${id})` : said)
  }
}

const TOKEN_FROM = 'set ADMIN_TOKEN or ADMIN_TOKEN_FILE'
const NO_TOKEN = new CommandError(
  EXIT.notAllowed,
  `there is no operator token: ${TOKEN_FROM}, or go to where the server's ./data is`,
)
const OLDER = new CommandError(
  EXIT.notAssay,
  'this server does not know what was asked: it is of another version than this command line; use the same one',
)

const notAssay = (url: string) =>
  new CommandError(EXIT.notAssay, `what answers at ${url} is not Assay; ASSAY_URL names another`)

function parsed(text: string, url: string): Answer {
  try {
    return JSON.parse(text)
  } catch {
    throw notAssay(url)
  }
}

function queryOf(query: Ask['query'] = {}): string {
  const given = Object.entries(query).filter(([, value]) => value !== undefined && value !== false)
  return given.length === 0
    ? ''
    : `?${new URLSearchParams(given.map(([name, value]) => [name, String(value)]))}`
}
