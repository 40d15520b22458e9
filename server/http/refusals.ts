import { STATUS_CODES } from 'node:http'
import type { Duplex } from 'node:stream'
import type { Clock } from '../lib/clock.ts'
import type { Log } from '../lib/logger.ts'
import type { Metrics } from '../lib/metrics.ts'
import { requestIdFrom } from './request-id.ts'

/** Anyone can send such requests at network speed, so one line covers all requests in this time (ms). */
const LOG_INTERVAL_MS = 1_000

/** Node's statuses for unreadable requests, by error code. Any other code is 400. */
const UNREADABLE: Record<string, number> = {
  HPE_HEADER_OVERFLOW: 431,
  HPE_CHUNK_EXTENSIONS_OVERFLOW: 413,
  ERR_HTTP_REQUEST_TIMEOUT: 408,
}

export interface RefusalsOptions {
  clock: Clock
  log: Log
  metrics: Pick<Metrics, 'refused'>
}

/** Answers requests that reach no route, counts each of them, and logs one per second. */
export class Refusals {
  readonly #options: RefusalsOptions
  #loggedAt = Number.NEGATIVE_INFINITY
  /** The number of requests since the last line. */
  #unlogged = 0

  constructor(options: RefusalsOptions) {
    this.#options = options
  }

  /**
   * RFC 9112 3.2: a request with two Host headers is 400, because a proxy may have routed it by the other one.
   */
  secondHost(): Response {
    return new Response(null, {
      status: 400,
      headers: { 'Content-Length': '0', ...this.#note(400, 'two Host headers') },
    })
  }

  /**
   * Answers as Node does without a listener, unless an answer has begun already, and adds a request id, which every answer has.
   * The socket is closed at once, because nothing that follows can be read either.
   */
  unreadable(error: NodeJS.ErrnoException, socket: Duplex) {
    const { _httpMessage: underWay } = socket as { _httpMessage?: { _headerSent: boolean } }
    if (socket.writable && !underWay?._headerSent) socket.write(this.#unreadable(error.code ?? ''))
    socket.destroy(error)
  }

  #unreadable(code: string): string {
    const status = UNREADABLE[code] ?? 400
    const headers = { ...this.#note(status, code), 'Content-Length': '0', Connection: 'close' }
    return [
      `HTTP/1.1 ${status} ${STATUS_CODES[status]}`,
      ...Object.entries(headers).map(header => header.join(': ')),
      '\r\n',
    ].join('\r\n')
  }

  /** Counts an answer and logs it if its turn has come. Returns its request id as a header. */
  #note(status: number, reason: string) {
    const { clock, log, metrics } = this.#options
    const requestId = requestIdFrom(undefined)
    metrics.refused(status)
    const now = clock.monotonic()
    if (now - this.#loggedAt < LOG_INTERVAL_MS) this.#unlogged++
    else {
      log.info(
        { requestId, status, reason, unlogged: this.#unlogged },
        'a request was refused because it could not be parsed',
      )
      this.#loggedAt = now
      this.#unlogged = 0
    }
    return { 'X-Request-Id': requestId }
  }
}
