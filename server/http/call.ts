import { randomUUID } from 'node:crypto'
import type { IncomingMessage } from 'node:http'

/** A request, as a route sees it. */
export class Call {
  readonly incoming: IncomingMessage
  readonly method: string
  /** As it was written: nothing is decoded, and no `..` resolved. */
  readonly path: string
  /** What follows the question mark. */
  readonly query: string
  readonly requestId: string
  /** What stands in the path where the route has `:names`. */
  params: Readonly<Record<string, string>> = {}

  constructor(incoming: IncomingMessage, { path, query }: Target) {
    this.incoming = incoming
    this.method = incoming.method ?? ''
    this.path = path
    this.query = query
    this.requestId = requestIdFrom(this.header('x-request-id'))
  }

  /** By its name in lower case. Several of one name are one, with commas. */
  header(name: string): string | undefined {
    const value = this.incoming.headers[name]
    return typeof value === 'string' ? value : undefined
  }

  /** The address at the other end of the connection, which may be a proxy's. */
  get peer(): string | undefined {
    return this.incoming.socket.remoteAddress
  }
}

export interface Reply {
  status: number
  headers: Record<string, string>
  /** Empty: none. What comes piece by piece is sent as it comes. */
  body: string | Uint8Array | AsyncIterable<string>
}

/** Throws an OAuthError where the answer is one. */
export type Handler = (call: Call) => Reply | Promise<Reply>

/** By method and path: `GET /api/sessions/:id`. */
export type Routes = Record<string, Handler>

export interface Target {
  path: string
  query: string
}

/** Of a request's target, which may be a whole URL (RFC 9112 3.2.2). */
export function targetOf(url = ''): Target {
  const target = url.startsWith('/') ? url : url.replace(/^https?:\/\/[^/?#]*/i, '')
  const start = target.indexOf('?')
  return start < 0
    ? { path: target, query: '' }
    : { path: target.slice(0, start), query: target.slice(start + 1) }
}

const REQUEST_ID = /^[\w.:-]{1,128}$/

/** The caller's, if it is harmless, so that one request can be followed through several logs. */
export const requestIdFrom = (theirs: string | undefined): string =>
  theirs !== undefined && REQUEST_ID.test(theirs) ? theirs : randomUUID()
