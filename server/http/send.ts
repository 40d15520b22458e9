import { once } from 'node:events'
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Reply } from './call.ts'

/** Writes a reply, or drops it if the client has left. Throws if a header has an invalid character. */
export function send(request: IncomingMessage, response: ServerResponse, { status, headers, body }: Reply) {
  response.writeHead(status, headers)
  if (typeof body === 'string' || body instanceof Uint8Array) response.end(body)
  else void stream(request, response, body)
  if (!request.complete) response.once('finish', () => discard(request))
}

/**
 * Writes each piece as the client takes it, and ends the iterator as soon as the client has left. Never rejects: the iterator
 * logs its own errors.
 */
async function stream(request: IncomingMessage, response: ServerResponse, pieces: AsyncIterable<string>) {
  const left = whenClosed(response)
  try {
    for await (const piece of pieces) {
      left.throwIfAborted()
      if (!response.write(piece)) await once(response, 'drain', { signal: left })
    }
    response.end()
  } catch {
    // In HTTP/1.0 the end of the connection is the end of the body: only a reset shows that the body is incomplete.
    request.socket.resetAndDestroy()
  }
}

/** Aborted once the response is closed, whether it was sent or not. */
function whenClosed(response: ServerResponse): AbortSignal {
  if (response.destroyed) return AbortSignal.abort()
  const closed = new AbortController()
  response.once('close', () => closed.abort())
  return closed.signal
}

/** Bytes of a body that nobody reads, and how long its sender has to see the answer before its connection is cut (ms). */
const MAX_DISCARDED_BYTES = 1024 * 1024
const LINGER_MS = 500

/** Lets the rest of a body pass, so that the connection can be used again; one of which there is no end is cut off. */
function discard(request: IncomingMessage) {
  let size = 0
  request.on('data', (chunk: Buffer) => {
    size += chunk.length
    // It is still sending: cut off now, it might never read what it was answered.
    if (size > MAX_DISCARDED_BYTES) request.pause()
  })
  const cut = setTimeout(() => request.socket.destroySoon(), LINGER_MS)
  request.once('close', () => clearTimeout(cut))
}
