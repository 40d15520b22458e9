import type { IncomingMessage } from 'node:http'
import type { AppContext, AppEnv } from './env.ts'

/**
 * A request's target as it was written: nothing is decoded and no `..` is resolved, because `/verify/../healthz` is what a
 * client sent through a proxy, and must not become `/healthz`. A target may be a whole URL (RFC 9112 3.2.2).
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

/** Node's request, with its target and host once the adapter is given others. */
export type Incoming = IncomingMessage & { originalUrl?: string; originalHost?: string | undefined }

/** Hono's `getPath`. Without a socket, under `app.request()`, the target is the URL of the Request. */
export const getPath = (request: Request, options?: { env?: AppEnv['Bindings'] }): string =>
  pathOf(targetOf(request, options?.env?.incoming))

export const targetOfContext = (c: AppContext): string => targetOf(c.req.raw, c.env?.incoming)

const targetOf = (request: Request, incoming: Incoming | undefined) =>
  incoming === undefined ? request.url : (incoming.originalUrl ?? incoming.url ?? '')

/**
 * @hono/node-server makes a URL of the target and the Host header, and refuses what it can't: a backslash, `OPTIONS *`, a
 * strange Host. Such a request would get neither a request id nor a log line. It is therefore given a target and a host that
 * it accepts, and `getPath` reads the original.
 */
export function keepOriginalTarget(incoming: Incoming) {
  incoming.originalUrl = incoming.url ?? ''
  incoming.url = '/'
  incoming.originalHost = incoming.headers.host
  incoming.headers.host = HOST
}

const HOST = 'assay'
