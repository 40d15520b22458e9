import { randomUUID } from 'node:crypto'

const REQUEST_ID = /^[\w.:-]{1,128}$/

/**
 * The caller's request id if it is harmless, so that one request can be followed through several logs; otherwise a new one.
 * Hono's `requestId()` is not used: it sets the header by a `Headers` object, which costs every answer a copy of its headers.
 */
export const requestIdFrom = (theirs: string | undefined): string =>
  theirs !== undefined && REQUEST_ID.test(theirs) ? theirs : randomUUID()
