import type { IncomingMessage } from 'node:http'
import type { AppContext, AppEnv } from './env.ts'

/**
 * A request's target as received: nothing is decoded and no `..` is resolved, because a client may send
 * `/verify/../healthz` through a proxy, which must not become `/healthz`. A target may be a whole URL (RFC 9112
 * 3.2.2).
 */
export function pathOf(target: string): string {
  const path = withoutOrigin(target)
  const end = path.indexOf('?')
  return end < 0 ? path : path.slice(0, end)
}

/** Returns the query string without its question mark. */
export function queryOf(target: string): string {
  const start = target.indexOf('?')
  return start < 0 ? '' : target.slice(start + 1)
}

const withoutOrigin = (target: string) =>
  target.startsWith('/') ? target : target.replace(/^https?:\/\/[^/?#]*/i, '')

/** Node's request, with its original target and host if they were replaced for the adapter. */
export type Incoming = IncomingMessage & { originalUrl?: string; originalHost?: string | undefined }

/** Hono's `getPath`. Without a socket, under `app.request()`, the target is the URL of the Request. */
export const getPath = (request: Request, options?: { env?: AppEnv['Bindings'] }): string =>
  pathOf(targetOf(request, options?.env?.incoming))

export const targetOfContext = (c: AppContext): string => targetOf(c.req.raw, c.env?.incoming)

const targetOf = (request: Request, incoming: Incoming | undefined) =>
  incoming === undefined ? request.url : (incoming.originalUrl ?? incoming.url ?? '')

/**
 * @hono/node-server builds a URL from the target and the Host header, and refuses the request if that fails: for a
 * backslash, `OPTIONS *`, or a strange Host. Such a request would get neither a request id nor a log line. The
 * adapter therefore gets a target and a host that it accepts, and `getPath` reads the original.
 */
export function keepOriginalTarget(incoming: Incoming) {
  incoming.originalUrl = incoming.url ?? ''
  incoming.url = '/'
  incoming.originalHost = incoming.headers.host
  incoming.headers.host = HOST
}

const HOST = 'assay'
