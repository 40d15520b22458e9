import type { AppContext } from './env.ts'

type Headers = Readonly<Record<string, string>>
type Body = string | Uint8Array<ArrayBuffer> | ReadableStream | null

/** Secrets, decisions and personal data must not be cached. */
export const NO_STORE = { 'Cache-Control': 'no-store' }

/**
 * Every answer but those of /verify. `c.body()` is not used: with more than one header it builds a `Headers` object, which the
 * adapter then copies. Plain headers are written as they are.
 */
export const respond = (c: AppContext, body: Body, status: number, headers: Headers): Response =>
  new Response(body, { status, headers: { ...headers, 'X-Request-Id': c.get('requestId') } })

/** A JSON answer that must not be cached. Undefined members are omitted. */
export const json = (c: AppContext, body: object, status = 200, headers: Headers = {}): Response =>
  bytes(c, JSON.stringify(body), status, { 'Content-Type': 'application/json', ...NO_STORE, ...headers })

/** An answer with its length, which HEAD returns too. */
export const bytes = (
  c: AppContext,
  body: string | Uint8Array<ArrayBuffer>,
  status: number,
  headers: Headers,
) => respond(c, body, status, { ...headers, 'Content-Length': String(Buffer.byteLength(body)) })

export const noContent = (c: AppContext): Response => respond(c, null, 204, {})
