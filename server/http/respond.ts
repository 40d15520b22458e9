import type { Ctx } from './context.ts'

/**
 * Every answer but those of /verify. Its headers are a plain object, and there from the start: what becomes a Headers, here or
 * later, costs more than reading the request.
 */
export const respond = (
  c: Ctx,
  body: string | null,
  status: number,
  headers: Readonly<Record<string, string>>,
): Response => new Response(body, { status, headers: { ...headers, 'X-Request-Id': c.get('requestId') } })

export const json = (
  c: Ctx,
  body: object,
  status = 200,
  headers: Readonly<Record<string, string>> = {},
): Response => respond(c, JSON.stringify(body), status, { 'Content-Type': 'application/json', ...headers })

export const noContent = (c: Ctx): Response => respond(c, null, 204, {})

/** Secrets and decisions are nothing for a cache (RFC 6749 5.1). */
export const NO_STORE = { 'Cache-Control': 'no-store' }
