import type { IncomingMessage, ServerResponse } from 'node:http'
import { Paced } from '../lib/paced.ts'

/** The most bytes that are read from an unread body, which is more than the largest body has. */
const MAX_DISCARDED_BYTES = 1024 * 1024
/** One chunk of one body is read per interval (ms): 16 MB a second for all bodies together. */
const INTERVAL_MS = 4
/** The time for the sender of a body to send the rest and read the answer before its connection is closed (ms). */
const LINGER_MS = 2_000
/** The most bodies that are discarded at the same time. Each has up to two chunks of 64 KiB in memory. */
const MAX_AT_ONCE = 256

/**
 * Once a request is answered, discards the rest of its body, so that a client that sends the whole body before it
 * reads gets its answer, and the connection can be reused. The bodies take turns: otherwise a refused client could
 * make the server read hundreds of megabytes a second. The adapter's own clean-up (`autoCleanupIncoming`) would read
 * 64 MiB of each.
 */
export class UnreadBodies {
  readonly #chunks = new Paced(INTERVAL_MS)
  /** All bodies, the oldest first, with the timer that closes the connection. */
  readonly #cuts = new Map<IncomingMessage, NodeJS.Timeout>()

  /** Called with each request before it is answered. */
  watch(incoming: IncomingMessage, response: ServerResponse) {
    const { headers } = incoming
    if (headers['content-length'] === undefined && headers['transfer-encoding'] === undefined) return
    response.once('prefinish', () => incoming.complete || this.#discard(incoming))
  }

  #discard(incoming: IncomingMessage) {
    const cut = setTimeout(() => incoming.socket.destroySoon(), LINGER_MS)
    this.#cuts.set(incoming, cut)
    if (this.#cuts.size > MAX_AT_ONCE) this.#cutOldest()
    let size = 0
    const takeChunk = () => incoming.resume()
    incoming.on('data', (chunk: Buffer) => {
      incoming.pause()
      size += chunk.length
      if (size <= MAX_DISCARDED_BYTES) this.#chunks.add(takeChunk)
    })
    incoming.once('close', () => {
      this.#forget(incoming)
      this.#chunks.remove(takeChunk)
    })
    // Otherwise Node reads and drops the rest of an unread body as fast as it arrives.
    takeChunk()
  }

  #cutOldest() {
    const [oldest] = this.#cuts.keys()
    this.#forget(oldest!)
    oldest!.socket.destroySoon()
  }

  #forget(incoming: IncomingMessage) {
    clearTimeout(this.#cuts.get(incoming))
    this.#cuts.delete(incoming)
  }
}
