import type { Reply } from './call.ts'

type Headers = Readonly<Record<string, string>>

export const respond = (body: string | Uint8Array, status: number, headers: Headers): Reply => ({
  status,
  headers: { ...headers, 'Content-Length': String(Buffer.byteLength(body)) },
  body,
})

/** Members that are undefined are left out. */
export const json = (body: object, status = 200, headers: Headers = {}): Reply =>
  respond(JSON.stringify(body), status, { 'Content-Type': 'application/json', ...headers })

export const noContent = (): Reply => ({ status: 204, headers: {}, body: '' })

/** Secrets and decisions are nothing for a cache (RFC 6749 5.1). */
export const NO_STORE = { 'Cache-Control': 'no-store' }
