import type { IncomingMessage, ServerResponse } from 'node:http'

/** Bytes of an unread body that are taken, and how long its sender has to read the answer before its connection is cut (ms). */
const MAX_DISCARDED_BYTES = 1024 * 1024
const LINGER_MS = 500

/**
 * Once the answer is sent, discards the rest of the body, so that the connection can be used again, and cuts the connection
 * where the body has no end. Node itself drops a body that no route has begun to read; only the time bounds that. The
 * adapter's own clean-up (`autoCleanupIncoming`) would read 64 MiB of each.
 */
export function discardUnreadBody(incoming: IncomingMessage, response: ServerResponse) {
  const { headers } = incoming
  if (headers['content-length'] === undefined && headers['transfer-encoding'] === undefined) return
  response.once('finish', () => {
    if (!incoming.complete) discard(incoming)
  })
}

function discard(incoming: IncomingMessage) {
  let size = 0
  incoming.on('data', (chunk: Buffer) => {
    size += chunk.length
    // Its sender might never read the answer if the connection were cut while it is still sending.
    if (size > MAX_DISCARDED_BYTES) incoming.pause()
  })
  const cut = setTimeout(() => incoming.socket.destroySoon(), LINGER_MS)
  incoming.once('close', () => clearTimeout(cut))
}
